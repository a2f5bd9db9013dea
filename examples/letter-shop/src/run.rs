//! One run: nodes that settle as the configuration says, a shop, a customer, and a look at the books.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rialto_node::secrets::random;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    Result, customer,
    process::{Node, Running},
    shop::{PRICE, units},
};

/// Longest wait for the last settlement to arrive.
const QUIET_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the books are read meanwhile.
const QUIET_INTERVAL: Duration = Duration::from_millis(20);
/// What the customer's wallet may spend in all.
const WALLET_CREDIT: &str = "-1000000000000";

/// How two nodes settle: what their operators ask of the admin APIs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Configuration {
    pub(crate) settlement: String,
    bank: Option<BankConfiguration>,
    /// Requests to the shop's node, made first.
    shop: Vec<AdminRequest>,
    /// Requests to the customer's node.
    customer: Vec<AdminRequest>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BankConfiguration {
    delay_ms: u64,
}

/// `{shop.node}`, `{customer.node}`, `{bank}` and `{token}` in it stand for what is known only at run time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdminRequest {
    post: String,
    body: Value,
}

impl Configuration {
    pub(crate) fn of_the_example() -> Result<Vec<Self>> {
        let files = [
            ("account.toml", include_str!("../account.toml")),
            ("asymmetrical.toml", include_str!("../asymmetrical.toml")),
            ("symmetrical.toml", include_str!("../symmetrical.toml")),
        ];
        files
            .iter()
            .map(|(name, text)| Self::parse(name, text))
            .collect()
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let text =
            fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
        Self::parse(&name, &text)
    }

    fn parse(name: &str, text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| format!("{name}: {error}").into())
    }
}

/// How a run went.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) settlement: String,
    pub(crate) letters: u32,
    /// To a tenth.
    pub(crate) letters_per_second: serde_json::Number,
    /// Units of USD/6.
    pub(crate) paid: u64,
}

pub(crate) async fn run(configuration: &Configuration, letters: u32) -> Result<Run> {
    let folder = tempfile::Builder::new().prefix("letter-shop-").tempdir()?;
    let (shop_node, customer_node) = tokio::try_join!(
        Node::start(folder.path(), "shop"),
        Node::start(folder.path(), "customer"),
    )?;
    let mut bank = match &configuration.bank {
        Some(bank) => Some(start_bank(bank, &shop_node, &customer_node)?),
        None => None,
    };
    let bank_address = match &mut bank {
        Some(bank) => bank.address().await?,
        None => String::new(),
    };
    let facts = [
        ("{shop.node}", shop_node.endpoints.node.to_string()),
        ("{customer.node}", customer_node.endpoints.node.to_string()),
        ("{bank}", bank_address),
        ("{token}", BASE64_URL_SAFE_NO_PAD.encode(random::<24>())),
    ];
    let wallet = json!({
        "name": customer::WALLET, "relation": "local", "asset_code": "USD", "asset_scale": 6,
        "limits": {"balance_min": WALLET_CREDIT},
    });
    customer_node.admin.post("/v1/accounts", &wallet).await?;
    for (node, requests) in [
        (&shop_node, &configuration.shop),
        (&customer_node, &configuration.customer),
    ] {
        for request in requests {
            let body = filled(&request.body, &facts);
            let key = BASE64_URL_SAFE_NO_PAD.encode(random::<16>());
            node.admin.post_once(&request.post, &body, &key).await?;
        }
    }

    let mut shop = Running::start("shop", &shop_node.arguments())?;
    let shop_url = shop.address().await?;
    let mut arguments = customer_node.arguments();
    arguments.extend(["--shop".to_owned(), shop_url]);
    arguments.extend(["--letters".to_owned(), letters.to_string()]);
    let mut customer = Running::start("customer", &arguments)?;
    let (mut text, mut end) = (String::new(), Value::Null);
    while let Some(line) = customer.line().await? {
        let line: Value = serde_json::from_str(&line)?;
        match line["letter"].as_str() {
            Some(letter) => {
                text.push_str(letter);
                eprint!("{letter}");
            }
            None => end = line,
        }
    }
    eprintln!();
    let delivered = u32::try_from(text.chars().count())?;
    let paid = units(&end["paid"])?;
    let order = end["order"]
        .as_str()
        .ok_or("the customer did not end well")?;
    audit(&shop_node, &customer_node, order, delivered, paid).await?;
    Ok(Run {
        settlement: configuration.settlement.clone(),
        letters: delivered,
        letters_per_second: per_second(delivered, units(&end["elapsed_us"])?)?,
        paid: u64::try_from(paid)?,
    })
}

fn start_bank(bank: &BankConfiguration, shop: &Node, customer: &Node) -> Result<Running> {
    let reports = |node: &Node| {
        let address = node
            .endpoints
            .settlement
            .ok_or("the node takes no reports")?;
        Ok::<_, &str>(format!("http://{address}"))
    };
    Running::start(
        "bank",
        &[
            "--delay-ms".to_owned(),
            bank.delay_ms.to_string(),
            "--customer".to_owned(),
            reports(customer)?,
            "--shop".to_owned(),
            reports(shop)?,
        ],
    )
}

/// The value with what stands for something replaced, in all texts.
fn filled(value: &Value, facts: &[(&str, String)]) -> Value {
    match value {
        Value::String(text) => {
            let mut text = text.clone();
            for (name, fact) in facts {
                text = text.replace(name, fact);
            }
            Value::String(text)
        }
        Value::Array(values) => values.iter().map(|value| filled(value, facts)).collect(),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| (name.clone(), filled(value, facts)));
            Value::Object(fields.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn per_second(letters: u32, elapsed_us: i128) -> Result<serde_json::Number> {
    let tenths = i128::from(letters) * 10_000_000 / elapsed_us.max(1);
    Ok(serde_json::from_str(&format!(
        "{}.{}",
        tenths / 10,
        tenths % 10
    ))?)
}

/// Where a node's books stand, in units of USD/6.
struct Books {
    balances: Value,
    position: i128,
    settled: i128,
}

impl Books {
    async fn read(node: &Node) -> Result<Self> {
        let all = node.admin.get("/v1/balances").await?;
        let position = |key: &str| units(&all["positions"][0][key]);
        Ok(Self {
            position: position("amount")?,
            settled: position("settled")?,
            balances: all["balances"].clone(),
        })
    }

    fn balance(&self, account: &str) -> Result<i128> {
        let mut balances = self.balances.as_array().into_iter().flatten();
        let found = balances.find(|balance| balance["account"] == account);
        units(&found.ok_or_else(|| format!("no balance of {account}"))?["balance"])
    }

    /// Zero, if nothing was made or lost.
    fn sum(&self) -> Result<i128> {
        let balances = self.balances.as_array().into_iter().flatten();
        let balances = balances.map(|balance| units(&balance["balance"]));
        Ok(balances.sum::<Result<i128>>()? + self.position + self.settled)
    }
}

/// Each letter was paid once, the neighbours agree, and no unit was made or lost.
async fn audit(shop: &Node, customer: &Node, order: &str, letters: u32, paid: i128) -> Result<()> {
    let started = Instant::now();
    loop {
        let (at_shop, at_customer) = (Books::read(shop).await?, Books::read(customer).await?);
        let agreed = at_shop.balance("customer")? == -at_customer.balance("shop")?
            && at_shop.settled == -at_customer.settled;
        if agreed {
            let price = i128::from(letters) * i128::from(PRICE);
            let facts = [
                ("paid by the customer", paid, price),
                (
                    "in the shop's books for the order",
                    at_shop.balance(order)?,
                    price,
                ),
                (
                    "in the customer's wallet",
                    at_customer.balance(customer::WALLET)?,
                    -price,
                ),
                ("made or lost at the shop's node", at_shop.sum()?, 0),
                ("made or lost at the customer's node", at_customer.sum()?, 0),
            ];
            for (what, found, expected) in facts {
                if found != expected {
                    let message =
                        format!("{found} units {what}, and {expected} for {letters} letters");
                    return Err(message.into());
                }
            }
            return Ok(());
        }
        if started.elapsed() > QUIET_TIMEOUT {
            return Err("the two nodes do not agree on what is owed".into());
        }
        sleep(QUIET_INTERVAL).await;
    }
}
