//! The shop: it hands out a letter when the money for it is in its node's books.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{
    Json as Body, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    Result,
    http::{Json, NodeArgs},
};

/// Units of USD/6 for one letter.
pub(crate) const PRICE: u64 = 100;

/// What is for sale, over and over.
const TEXT: &str =
    "Packets carry the value, books remember who owes whom, and what is owed is settled. ";

struct Shop {
    node: Json,
    orders: AtomicU64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    letters: u64,
}

/// An answer, or one line that says why not.
type Answer = std::result::Result<(StatusCode, Body<Value>), (StatusCode, String)>;

pub(crate) async fn serve(args: &NodeArgs) -> Result<()> {
    let shop = Arc::new(Shop {
        node: args.connect()?,
        orders: AtomicU64::new(0),
    });
    let router = Router::new()
        .route("/orders", post(order))
        .route("/orders/{order}/letters/{number}", get(letter))
        .with_state(shop);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

/// Each order is an account of its own, so that the books say what was paid for it.
async fn order(State(shop): State<Arc<Shop>>, Body(order): Body<Order>) -> Answer {
    if order.letters == 0 {
        return Err((StatusCode::BAD_REQUEST, "an order has letters".to_owned()));
    }
    let name = format!("order-{}", shop.orders.fetch_add(1, Ordering::Relaxed) + 1);
    let account = json!({
        "name": name, "relation": "local", "asset_code": "USD", "asset_scale": 6,
    });
    let made = shop.node.post("/v1/accounts", &account).await;
    let made = made.map_err(broken)?;
    let answer = json!({
        "order": name, "payment_pointer": made["payment_pointer"], "price": PRICE.to_string(),
        "asset_code": "USD", "asset_scale": 6,
    });
    Ok((StatusCode::CREATED, Body(answer)))
}

/// Letter `number`, counted from 0, once that many and this one are paid.
async fn letter(
    State(shop): State<Arc<Shop>>,
    Path((order, number)): Path<(String, u64)>,
) -> Answer {
    if !order.starts_with("order-")
        || !order
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    {
        return Err((StatusCode::NOT_FOUND, format!("there is no order {order}")));
    }
    let account = shop.node.get(&format!("/v1/accounts/{order}")).await;
    let account = account.map_err(broken)?;
    let paid: i128 = units(&account["balance"]).map_err(broken)?;
    let due = (i128::from(number) + 1) * i128::from(PRICE);
    if paid < due {
        let answer = json!({"missing": (due - paid).to_string()});
        return Ok((StatusCode::PAYMENT_REQUIRED, Body(answer)));
    }
    let letters = TEXT.as_bytes();
    let place = number % letters.len() as u64;
    let letter = usize::try_from(place).map(|place| char::from(letters[place]));
    Ok((
        StatusCode::OK,
        Body(json!({"letter": letter.map_err(broken)?})),
    ))
}

/// A number of units as the admin API writes it.
pub(crate) fn units(amount: &Value) -> Result<i128> {
    let text = amount.as_str().ok_or("an amount is missing in an answer")?;
    Ok(text.parse()?)
}

fn broken(error: impl ToString) -> (StatusCode, String) {
    (StatusCode::BAD_GATEWAY, error.to_string())
}
