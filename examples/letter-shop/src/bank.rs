//! A bank as a settlement engine (RFC 38) of both nodes: what one pays reaches the other after a delay.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json as Body, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::{delete, post},
};
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use tokio::{net::TcpListener, time::sleep};

use crate::{Result, http::Json};

/// Pause before a node that did not take the news is told again.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// Transfers that the bank remembers and works on.
const TRANSFERS_MAX: usize = 100_000;

#[derive(Debug, Args)]
pub(crate) struct BankArgs {
    /// Time that a transfer takes
    #[arg(long)]
    delay_ms: u64,
    /// Where the customer's node takes reports
    #[arg(long)]
    customer: String,
    /// Where the shop's node takes reports
    #[arg(long)]
    shop: String,
}

/// One of the two clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Client {
    Customer,
    Shop,
}

impl Client {
    fn other(self) -> Self {
        match self {
            Self::Customer => Self::Shop,
            Self::Shop => Self::Customer,
        }
    }
}

struct Bank {
    delay: Duration,
    nodes: HashMap<Client, Json>,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    /// What each client's node calls its account here.
    accounts: HashMap<Client, String>,
    /// Orders by their key: one that is repeated is not made twice.
    transfers: HashMap<String, Value>,
}

pub(crate) async fn serve(args: &BankArgs) -> Result<()> {
    let node = |url: &str| Json::new(url, None);
    let bank = Arc::new(Bank {
        delay: Duration::from_millis(args.delay_ms),
        nodes: HashMap::from([
            (Client::Customer, node(&args.customer)),
            (Client::Shop, node(&args.shop)),
        ]),
        books: Mutex::default(),
    });
    let router = Router::new()
        .route("/{client}/accounts", post(open))
        .route("/{client}/accounts/{id}", delete(close))
        .route("/{client}/accounts/{id}/settlements", post(transfer))
        .with_state(bank);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

#[derive(Debug, Deserialize)]
struct Opening {
    id: String,
}

async fn open(
    State(bank): State<Arc<Bank>>,
    Path(client): Path<Client>,
    Body(opening): Body<Opening>,
) -> StatusCode {
    bank.with(|books| books.accounts.insert(client, opening.id));
    StatusCode::CREATED
}

async fn close(
    State(bank): State<Arc<Bank>>,
    Path((client, _)): Path<(Client, String)>,
) -> StatusCode {
    bank.with(|books| books.accounts.remove(&client));
    StatusCode::NO_CONTENT
}

async fn transfer(
    State(bank): State<Arc<Bank>>,
    Path((client, id)): Path<(Client, String)>,
    headers: HeaderMap,
    Body(quantity): Body<Value>,
) -> StatusCode {
    let Some(key) = headers
        .get("idempotency-key")
        .and_then(|key| key.to_str().ok())
    else {
        return StatusCode::BAD_REQUEST;
    };
    let key = key.to_owned();
    let status = bank.with(|books| {
        if books.accounts.get(&client) != Some(&id) {
            return StatusCode::NOT_FOUND;
        }
        match books.transfers.get(&key) {
            Some(known) if *known == quantity => StatusCode::OK,
            Some(_) => StatusCode::CONFLICT,
            None if books.transfers.len() >= TRANSFERS_MAX => StatusCode::SERVICE_UNAVAILABLE,
            None => {
                books.transfers.insert(key.clone(), quantity.clone());
                StatusCode::CREATED
            }
        }
    });
    if status == StatusCode::CREATED {
        tokio::spawn(async move { bank.carry_out(client.other(), &key, &quantity).await });
    }
    status
}

impl Bank {
    fn with<T>(&self, change: impl FnOnce(&mut Books) -> T) -> T {
        change(&mut self.books.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The money arrives: the node is told until it has heard.
    async fn carry_out(&self, payee: Client, key: &str, quantity: &Value) {
        sleep(self.delay).await;
        loop {
            let account = self.with(|books| books.accounts.get(&payee).cloned());
            if let Some(account) = account {
                let path = format!("/accounts/{account}/settlements");
                if self.nodes[&payee]
                    .post_once(&path, quantity, key)
                    .await
                    .is_ok()
                {
                    return;
                }
            }
            sleep(RETRY_INTERVAL).await;
        }
    }
}
