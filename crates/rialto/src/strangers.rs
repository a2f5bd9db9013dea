//! `peer callers`, `peer requests` and what is decided about them: nodes that nobody invited.

use serde_json::{Map, Value, json};

use crate::{
    accounts::{asset_of, text},
    args::{NodeArgs, PeerAdoptArgs, PeerApproveArgs, PeerCallerArgs, PeerDenyArgs},
    client::encoded,
    connect::connect,
    failure::Failure,
    output,
    peers::{asset, limits},
};

pub(crate) async fn callers(args: &NodeArgs) -> Result<(), Failure> {
    let found: Value = connect(args)?.get("/v1/callers").await?;
    if args.output.json {
        return output::json(&found);
    }
    let row = |caller: &Value| {
        let columns = [
            "fingerprint",
            "address",
            "path",
            "count",
            "first_seen",
            "last_seen",
        ];
        columns.map(|column| text(&caller[column])).to_vec()
    };
    let mut rows: Vec<_> = { found["callers"].as_array().into_iter().flatten() }
        .map(row)
        .collect();
    for blocked in found["blocked"].as_array().into_iter().flatten() {
        let mut row = vec![text(blocked), "blocked".to_owned()];
        row.resize(6, "-".to_owned());
        rows.push(row);
    }
    let header = ["CALLER", "ADDRESS", "PATH", "COUNT", "FIRST", "LAST"];
    output::table(&header, rows)
}

pub(crate) async fn adopt(args: &PeerAdoptArgs) -> Result<(), Failure> {
    let mut body = Map::new();
    body.insert("account".to_owned(), json!(args.name));
    if let Some(text) = &args.asset {
        let asset = asset(text)?;
        body.insert("asset_code".to_owned(), json!(asset.code()));
        body.insert("asset_scale".to_owned(), json!(asset.scale()));
        let limits = limits(&asset, args.credit.as_deref(), None)?;
        body.insert("limits".to_owned(), limits.into());
    }
    if let Some(relation) = args.relation {
        body.insert("relation".to_owned(), json!(relation.as_str()));
    }
    if let Some(address) = &args.ilp_address {
        body.insert("ilp_address".to_owned(), json!(address));
    }
    let path = format!("{}/adopt", caller(&args.fingerprint));
    let account: Value = connect(&args.node)?.post(&path, &body.into()).await?;
    let note = format!("the caller's token opens account {} now", args.name);
    args.node.output.done(&account, &note)
}

pub(crate) async fn block(args: &PeerCallerArgs) -> Result<(), Failure> {
    let path = format!("{}/block", caller(&args.fingerprint));
    let _: Value = connect(&args.node)?.put(&path, &json!({})).await?;
    let note = format!("caller {} is blocked", args.fingerprint);
    args.node
        .output
        .done(&json!({"blocked": args.fingerprint}), &note)
}

pub(crate) async fn unblock(args: &PeerCallerArgs) -> Result<(), Failure> {
    let path = format!("{}/block", caller(&args.fingerprint));
    connect(&args.node)?.delete(&path).await?;
    let note = format!("caller {} is not blocked any more", args.fingerprint);
    args.node
        .output
        .done(&json!({"unblocked": args.fingerprint}), &note)
}

pub(crate) async fn requests(args: &NodeArgs) -> Result<(), Failure> {
    let found: Value = connect(args)?.get("/v1/peering-requests").await?;
    if args.output.json {
        return output::json(&found);
    }
    let row = |request: &Value| {
        let asset = format!(
            "{}/{}",
            text(&request["asset_code"]),
            text(&request["asset_scale"])
        );
        let mut row = ["id", "state", "from", "name", "ilp_address", "url"]
            .map(|column| text(&request[column]))
            .to_vec();
        row.extend([asset, text(&request["expires_at"])]);
        row
    };
    let list = found["requests"].as_array().into_iter().flatten();
    let header = [
        "REQUEST", "STATE", "FROM", "NAME", "ADDRESS", "URL", "ASSET", "EXPIRES",
    ];
    output::table(&header, list.map(row).collect())?;
    if found["path"].is_null() {
        args.output
            .note("requests to peer are not taken: auto_peering.path is not set");
    }
    Ok(())
}

pub(crate) async fn approve(args: &PeerApproveArgs) -> Result<(), Failure> {
    let client = connect(&args.node)?;
    let found: Value = client.get("/v1/peering-requests").await?;
    let mut requests = found["requests"].as_array().into_iter().flatten();
    let Some(request) = requests.find(|request| request["id"] == *args.id) else {
        return Err(Failure::failed(format!(
            "there is no request '{}'",
            args.id
        )));
    };
    let asset = asset_of(request)?;
    let limits = limits(&asset, args.credit.as_deref(), args.packet_max.as_deref())?;
    let path = format!("/v1/peering-requests/{}/approve", encoded(&args.id));
    let body = json!({"name": args.name, "limits": limits});
    let _: Value = client.post(&path, &body).await?;
    let note = format!(
        "request {} is approved: the account is made when {} calls again",
        args.id,
        text(&request["url"])
    );
    args.node.output.done(&json!({"approved": args.id}), &note)
}

pub(crate) async fn deny(args: &PeerDenyArgs) -> Result<(), Failure> {
    let path = format!("/v1/peering-requests/{}/deny", encoded(&args.id));
    let _: Value = connect(&args.node)?.post(&path, &json!({})).await?;
    let note = format!("request {} is denied", args.id);
    args.node.output.done(&json!({"denied": args.id}), &note)
}

fn caller(fingerprint: &str) -> String {
    format!("/v1/callers/{}", encoded(fingerprint))
}
