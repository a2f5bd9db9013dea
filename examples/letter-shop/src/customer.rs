//! The customer: pays for one letter, waits for it, and goes on. At most one letter's price is at risk.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use clap::Args;
use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    Result,
    http::{Json, NodeArgs},
    shop::units,
};

/// The customer's account at its own node.
pub(crate) const WALLET: &str = "me";

/// Longest wait for one letter.
const LETTER_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause before a payment that did not get through, as where credit is used up, is made again.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// Seconds that the node is asked to wait for the end of a payment.
const PAYMENT_WAIT_S: u32 = 20;

#[derive(Debug, Args)]
pub(crate) struct CustomerArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Where the shop listens
    #[arg(long)]
    shop: String,
    /// Letters to buy
    #[arg(long)]
    letters: u32,
}

/// Buys the letters and prints each as it comes, and at the end what was paid for all and how long it took.
pub(crate) async fn buy(args: &CustomerArgs) -> Result<()> {
    let node = args.node.connect()?;
    let shop = Json::new(&args.shop, None);
    let order = shop
        .post("/orders", &json!({"letters": args.letters}))
        .await?;
    let name = order["order"].as_str().ok_or("an order without a name")?;
    let price = units(&order["price"])?;
    let started = Instant::now();
    let mut paid = 0;
    let mut payments = 0_u64;
    for number in 0..args.letters {
        let asked = Instant::now();
        let mut missing = price;
        loop {
            payments += 1;
            let body = json!({
                "account": WALLET, "receiver": order["payment_pointer"], "amount": missing.to_string(),
            });
            let path = format!("/v1/payments?wait={PAYMENT_WAIT_S}");
            let key = format!("{name}-{payments}");
            let payment = node.post_once(&path, &body, &key).await?;
            paid += units(&payment["sent"]["amount"])?;

            let path = format!("/orders/{name}/letters/{number}");
            let (status, answer) = shop.call(Method::GET, &path, None, None).await?;
            match status {
                StatusCode::OK => {
                    let line = json!({"letter": answer["letter"]});
                    writeln!(io::stdout(), "{line}")?;
                    break;
                }
                StatusCode::PAYMENT_REQUIRED if asked.elapsed() < LETTER_TIMEOUT => {
                    missing = units(&answer["missing"])?;
                    sleep(RETRY_INTERVAL).await;
                }
                _ => return Err(format!("no letter {number}: {status} {answer}; {payment}").into()),
            }
        }
    }
    let end = json!({
        "order": name, "paid": paid.to_string(), "elapsed_us": started.elapsed().as_micros().to_string(),
    });
    writeln!(io::stdout(), "{end}")?;
    Ok(())
}
