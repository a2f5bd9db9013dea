//! Settlements by hand as callers see them, and the keys of what else moves money.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{api::with_accounts, node::ADMIN};

const PATH: &str = "/v1/hand-settlements";
const ANN: Option<&str> = Some("read+pay");

fn transfer() -> Value {
    json!({"account": "far", "direction": "received", "amount": "700", "reference": "SEPA 4711"})
}

fn with(change: &Value) -> Value {
    let mut body = transfer();
    for (field, value) in change.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

fn missing() -> (u16, String, String) {
    (
        400,
        "idempotency_key".to_owned(),
        "Idempotency-Key".to_owned(),
    )
}

#[tokio::test]
async fn a_transfer_is_written_down_once() {
    let (node, client) = with_accounts().await;
    assert_eq!(
        client.call("POST", PATH, transfer()).await.problem(),
        missing()
    );
    let first = client.post_with_key(PATH, "key", transfer()).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let made = first.json();
    assert_eq!(
        made,
        json!({
            "id": "1", "account": "far", "direction": "received", "amount": "700",
            "asset_code": "USD", "asset_scale": 9, "reference": "SEPA 4711", "state": "settled",
            "recorded_by": ADMIN, "recorded_at": made["recorded_at"], "decided_by": null,
            "decided_at": null,
        })
    );
    let records = node.records().len();
    for (client, key) in [
        (client.with(Some(ADMIN)), "key"),
        (client.with(ANN), "other"),
    ] {
        let again = client.post_with_key(PATH, key, transfer()).await;
        assert_eq!((again.status, again.json()), (StatusCode::OK, made.clone()));
    }
    for (key, change, status, field) in [
        ("key", json!({"amount": "701"}), 422, "Idempotency-Key"),
        ("key", json!({"reference": "x"}), 422, "Idempotency-Key"),
        ("key", json!({"direction": "paid"}), 422, "Idempotency-Key"),
        ("other", json!({"amount": "701"}), 409, "reference"),
        ("other", json!({"direction": "paid"}), 409, "reference"),
        ("other", json!({"account": "nobody"}), 404, ""),
        (
            "other",
            json!({"reference": "x", "amount": "0"}),
            422,
            "amount",
        ),
        (
            "other",
            json!({"reference": "x", "amount": "18446744073709551616"}),
            422,
            "amount",
        ),
        (
            "other",
            json!({"reference": "x", "amount": "701", "direction": "paid"}),
            422,
            "amount",
        ),
        ("other", json!({"reference": " "}), 422, "reference"),
        ("other", json!({"reference": "a\nb"}), 422, "reference"),
        (
            "other",
            json!({"reference": "x".repeat(256)}),
            422,
            "reference",
        ),
        ("other", json!({"direction": "both"}), 422, "direction"),
        ("other", json!({"approved": true}), 422, "approved"),
    ] {
        let refused = client.post_with_key(PATH, key, with(&change)).await;
        let refused = refused.problem();
        assert_eq!((refused.0, refused.2.as_str()), (status, field), "{change}");
    }
    assert_eq!(node.records().len(), records, "nothing was written");
    let paid = with(&json!({"direction": "paid", "amount": "700", "reference": "x"}));
    let paid = client.post_with_key(PATH, "other", paid).await;
    assert_eq!(paid.status, StatusCode::CREATED);
    let books = client.must("GET", "/v1/balances", Value::Null).await;
    let far = |entry: &&Value| entry["account"] == "far";
    let balance = books["balances"].as_array().unwrap().iter().find(far);
    assert_eq!(balance.unwrap()["balance"], "0");
    let newest = format!("{PATH}?limit=1");
    let newest = client.must("GET", &newest, Value::Null).await;
    assert_eq!(newest["hand_settlements"][0]["id"], "2");
    let cursor = newest["next_cursor"].as_str().unwrap();
    let rest = format!("{PATH}?account=far&cursor={cursor}");
    let rest = client.must("GET", &rest, Value::Null).await;
    assert_eq!(rest["hand_settlements"], json!([made]));
    let one = format!("{PATH}/1");
    assert_eq!(client.must("GET", &one, Value::Null).await, made);
    let none = client.call("GET", &format!("{PATH}/3"), Value::Null).await;
    assert_eq!(none.problem().0, 404);
}

#[tokio::test]
async fn another_operator_approves_or_declines() {
    let (node, client) = with_accounts().await;
    node.ask_second_approver();
    let ann = client.with(ANN);
    let proposed = ann.post_with_key(PATH, "key", transfer()).await;
    assert_eq!(proposed.status, StatusCode::ACCEPTED);
    let proposed = proposed.json();
    assert_eq!(
        (&proposed["state"], &proposed["recorded_by"]),
        (&json!("proposed"), &json!("read+pay"))
    );
    let waiting = format!("{PATH}?state=proposed");
    let listed = client.must("GET", &waiting, Value::Null).await;
    assert_eq!(listed["hand_settlements"], json!([proposed]));

    let approve = format!("{PATH}/1/approve");
    let keyless = client.call("POST", &approve, Value::Null).await;
    assert_eq!(keyless.problem(), missing());
    let own = ann.post_with_key(&approve, "a", Value::Null).await;
    assert_eq!(own.problem().0, 403);
    let records = node.records().len();
    for key in ["a", "a"] {
        let approved = client.post_with_key(&approve, key, Value::Null).await;
        assert_eq!(approved.status, StatusCode::OK);
        let approved = approved.json();
        assert_eq!(
            (&approved["state"], &approved["decided_by"]),
            (&json!("settled"), &json!(ADMIN))
        );
    }
    assert_eq!(node.records().len(), records + 1);
    for (client, path, key, status) in [
        (&client, approve.clone(), "b", 409),
        (&ann, approve.clone(), "a", 422),
        (&client, approve.clone(), "key", 422),
        (&ann, format!("{PATH}/9/approve"), "b", 404),
        (&client, format!("{PATH}/1/decline"), "", 409),
    ] {
        let refused = client.post_with_key(&path, key, Value::Null).await;
        assert_eq!(refused.problem().0, status, "{path} {key}");
    }

    let other = with(&json!({"reference": "other"}));
    ann.post_with_key(PATH, "key-2", other).await;
    let decline = format!("{PATH}/2/decline");
    let declined = ann.must("POST", &decline, Value::Null).await;
    assert_eq!(
        (&declined["state"], &declined["decided_by"]),
        (&json!("declined"), &json!("read+pay"))
    );
    let again = ann.call("POST", &decline, Value::Null).await;
    assert_eq!(again.problem().0, 409);
    let listed = client.must("GET", &waiting, Value::Null).await;
    assert_eq!(listed["hand_settlements"], json!([]));
    let account = client.must("GET", "/v1/accounts/far", Value::Null).await;
    assert_eq!(account["balance"], "700");
}

#[tokio::test]
async fn what_opens_a_channel_or_settles_needs_a_key() {
    let (_node, client) = with_accounts().await;
    let channel =
        json!({"account": "far", "kind": "symmetrical", "limit": "1", "their_limit": "1"});
    let settlement = json!({"account": "far", "amount": "1"});
    for (path, body) in [("/v1/channels", channel), ("/v1/settlements", settlement)] {
        let answer = client.call("POST", path, body).await;
        assert_eq!(answer.problem(), missing(), "{path}");
    }
}
