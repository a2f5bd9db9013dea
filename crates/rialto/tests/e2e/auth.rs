//! Tokens that peers make themselves, and tokens that are replaced while packets flow.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    harness::{ADMIN_TOKEN, CREDIT, Node, wait_for},
    raw::{Client, next_number, prepare},
};

const SECRET: &str = "HEiMCp0FoAC903QHueY89gAWJHo/izaBnJU8/58rlSI=";

/// A payer, a receiver, and nothing between them yet.
fn pair() -> (Node, Node) {
    let (payer, shop) = (
        Node::start("payer", "test.payer", ""),
        Node::start("shop", "test.shop", ""),
    );
    let local = |name| {
        json!({
            "name": name, "relation": "local", "asset_code": "USD", "asset_scale": 9,
            "limits": {"balance_min": CREDIT},
        })
    };
    payer.account(local("wallet"));
    shop.account(local("till"));
    shop.account(peer("payer", "test.payer"));
    (payer, shop)
}

fn peer(name: &str, address: &str) -> Value {
    json!({
        "name": name, "relation": "peer", "ilp_address": address, "asset_code": "USD",
        "asset_scale": 9, "limits": {"balance_min": CREDIT},
    })
}

fn pay(payer: &Node, shop: &Node, key: &str) -> Value {
    let request = json!({"account": "wallet", "receiver": shop.pointer("till"), "amount": "1000"});
    payer.pay(key, &request)
}

pub(crate) fn rialto(node: &Node, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_rialto"))
        .args(arguments)
        .arg("--json")
        .env("RIALTO_URL", format!("http://{}", node.admin))
        .env("RIALTO_TOKEN", ADMIN_TOKEN)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn private_file(folder: &std::path::Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// Sends an ILP packet of no bytes; the status line and the body.
fn knock(node: &Node, token: &str) -> (String, String) {
    let mut stream = TcpStream::connect(node.node).unwrap();
    write!(
        stream,
        "POST /accounts/payer/ilp HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: 0\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (
        head.lines().next().unwrap_or_default().to_owned(),
        body.to_owned(),
    )
}

#[test]
fn tokens_that_peers_make_themselves() {
    let (payer, shop) = pair();
    let folder = tempfile::tempdir().unwrap();
    let key = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
    let public = private_file(
        folder.path(),
        "public",
        &BASE64_STANDARD.encode(key.public_key()),
    );
    let private = private_file(folder.path(), "private", &BASE64_STANDARD.encode([3; 32]));
    let secret = private_file(folder.path(), "secret", SECRET);
    rialto(
        &shop,
        &[
            "account",
            "add-token",
            "payer",
            "--key-file",
            &public,
            "--jwt",
            "EdDSA",
            "--subject",
            "us",
        ],
    );
    let added = rialto(
        &shop,
        &[
            "account",
            "add-token",
            "payer",
            "--key-file",
            &secret,
            "--jwt",
            "HS256",
            "--subject",
            "us",
            "--audience",
            "shop",
        ],
    );

    let mut link = peer("shop", "test.shop");
    link["http"] = json!({
        "url": shop.ilp_url("payer"), "token": BASE64_STANDARD.encode([3; 32]),
        "jwt": {"algorithm": "EdDSA", "subject": "us"},
    });
    payer.account(link);
    assert_eq!(pay(&payer, &shop, "eddsa")["state"], "completed");
    let url = shop.ilp_url("payer");
    rialto(
        &payer,
        &[
            "account",
            "update",
            "shop",
            "--http-url",
            &url,
            "--http-token-file",
            &secret,
            "--http-jwt",
            "HS256",
            "--http-jwt-subject",
            "us",
            "--http-jwt-audience",
            "shop",
        ],
    );
    assert_eq!(pay(&payer, &shop, "hs256")["state"], "completed");
    // The wrong subject, then nothing but the key itself.
    rialto(
        &payer,
        &[
            "account",
            "update",
            "shop",
            "--http-url",
            &url,
            "--http-token-file",
            &private,
            "--http-jwt",
            "EdDSA",
            "--http-jwt-subject",
            "them",
        ],
    );
    assert_eq!(pay(&payer, &shop, "them")["state"], "failed");
    let refused = [
        knock(&shop, SECRET),
        knock(&shop, "x.y.z"),
        knock(
            &shop,
            &format!(
                "{}.{}.",
                b64(r#"{"alg":"none"}"#),
                b64(r#"{"sub":"us","exp":9999999999}"#)
            ),
        ),
        knock(
            &shop,
            &format!(
                "{}.{}.AAAA",
                b64(r#"{"alg":"EdDSA"}"#),
                b64(r#"{"sub":"us","exp":9999999999}"#)
            ),
        ),
        knock(
            &shop,
            &format!(
                "{}.{}.AAAA",
                b64(r#"{"alg":"EdDSA"}"#),
                b64(r#"{"sub":"nobody","exp":1}"#)
            ),
        ),
        knock(&shop, &"A".repeat(8_000)),
        knock(&shop, "unknown-token-of-nobody"),
    ];
    for answer in &refused {
        assert_eq!(answer, &refused[0], "the same words for each");
    }
    assert_eq!(refused[0].0, "HTTP/1.1 401 Unauthorized");

    // What is shown has no secret in it, and what is removed opens nothing.
    let shown = shop.ok("GET", "/v1/accounts/payer", None).to_string();
    assert!(
        shown.contains("EdDSA") && shown.contains("HS256") && !shown.contains(SECRET),
        "{shown}"
    );
    rialto(
        &payer,
        &[
            "account",
            "update",
            "shop",
            "--http-url",
            &url,
            "--http-token-file",
            &secret,
            "--http-jwt",
            "HS256",
            "--http-jwt-subject",
            "us",
            "--http-jwt-audience",
            "shop",
        ],
    );
    assert_eq!(pay(&payer, &shop, "again")["state"], "completed");
    rialto(
        &shop,
        &[
            "account",
            "remove-token",
            "payer",
            added["id"].as_str().unwrap(),
        ],
    );
    assert_eq!(pay(&payer, &shop, "removed")["state"], "failed");
    println!(
        "reliability: authentication | {} forged or foreign tokens | 0 accepted, one answer for all",
        refused.len()
    );
}

#[test]
fn a_public_key_for_rs256_opens_for_its_own_signatures_alone() {
    let (_payer, shop) = pair();
    let folder = tempfile::tempdir().unwrap();
    let keys = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: PublicKeyX509Der<'_> = keys.public_key().as_der().unwrap();
    let encoded = BASE64_STANDARD.encode(der.as_ref());
    let lines: Vec<_> = { encoded.as_bytes().chunks(64) }
        .map(|line| str::from_utf8(line).unwrap())
        .collect();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    );
    let public = private_file(folder.path(), "public.pem", &pem);
    let add = ["account", "add-token", "payer", "--key-file", &public];
    rialto(
        &shop,
        &[&add[..], &["--jwt", "RS256", "--subject", "us"]].concat(),
    );

    let unsigned = |algorithm: &str, subject: &str, expires: u64| {
        let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
        let claims = format!(r#"{{"sub":"{subject}","exp":{expires}}}"#);
        format!("{}.{}", b64(&header), b64(&claims))
    };
    let rs256 = |signed: &str| {
        let mut signature = vec![0; keys.public_modulus_len()];
        let random = SystemRandom::new();
        keys.sign(
            &RSA_PKCS1_SHA256,
            &random,
            signed.as_bytes(),
            &mut signature,
        )
        .unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    };
    let hs256 = |signed: &str, key: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let signature = hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    };
    let status = |token: &str| {
        let mut client = Client::new(shop.node, "/accounts/payer/ilp", token);
        let packet = prepare(next_number(), 0, "test.nowhere.x", 20_000);
        client.post(&packet).unwrap().0
    };
    const LATE: u64 = 9_999_999_999;
    assert_eq!(status(&rs256(&unsigned("RS256", "us", LATE))), 200);
    let forged = [
        hs256(&unsigned("HS256", "us", LATE), pem.as_bytes()),
        hs256(&unsigned("HS256", "us", LATE), pem.trim().as_bytes()),
        hs256(&unsigned("HS256", "us", LATE), der.as_ref()),
        hs256(&unsigned("HS256", "us", LATE), encoded.as_bytes()),
        hs256(&unsigned("RS256", "us", LATE), der.as_ref()),
        rs256(&unsigned("HS256", "us", LATE)),
        rs256(&unsigned("RS512", "us", LATE)),
        rs256(&unsigned("RS256", "them", LATE)),
        rs256(&unsigned("RS256", "us", 1)),
    ];
    for token in &forged {
        assert_eq!(status(token), 401, "{token}");
    }
    println!(
        "reliability: authentication | RS256 by a public key, {} tokens forged with it | 0 accepted",
        forged.len()
    );
}

fn b64(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

#[test]
fn tokens_that_peers_make_themselves_over_btp() {
    let (payer, mut shop) = pair();
    let folder = tempfile::tempdir().unwrap();
    let key = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
    let public = BASE64_STANDARD.encode(key.public_key());
    let public = private_file(folder.path(), "public", &public);
    let private = private_file(folder.path(), "private", &BASE64_STANDARD.encode([3; 32]));
    let add = [
        "account",
        "add-token",
        "payer",
        "--key-file",
        &public,
        "--jwt",
        "EdDSA",
    ];
    rialto(&shop, &[&add[..], &["--subject", "us"]].concat());
    payer.account(peer("shop", "test.shop"));
    let url = shop.btp_url("payer");
    let dial = |subject: &str| {
        let link = [
            "account",
            "update",
            "shop",
            "--btp-url",
            &url,
            "--btp-token-file",
            &private,
        ];
        let jwt = ["--btp-jwt", "EdDSA", "--btp-jwt-subject", subject];
        rialto(&payer, &[&link[..], &jwt].concat())
    };
    let shown = dial("us");
    assert_eq!(shown["btp"]["jwt"]["subject"], "us", "{shown}");
    assert!(!shown.to_string().contains(&BASE64_STANDARD.encode([3; 32])));
    let wait_up = |shop: &Node| {
        for (node, account) in [(shop, "payer"), (&payer, "shop")] {
            wait_for("the session", || {
                let account = node.ok("GET", &format!("/v1/accounts/{account}"), None);
                (account["link"] == "up").then_some(())
            });
        }
    };
    wait_up(&shop);
    assert_eq!(pay(&payer, &shop, "btp")["state"], "completed");
    // The session comes back by itself.
    shop.kill();
    shop.restart();
    wait_up(&shop);
    assert_eq!(pay(&payer, &shop, "again")["state"], "completed");
    // Another subject is somebody else, and the key itself is no token.
    dial("them");
    let doctor = |node: &Node| {
        node.ok("POST", "/v1/accounts/shop/doctor", Some(json!({})))
            .to_string()
    };
    let found = doctor(&payer);
    assert!(found.contains("token.refused"), "{found}");
    let link = [
        "account",
        "update",
        "shop",
        "--btp-url",
        &url,
        "--btp-token-file",
        &private,
    ];
    rialto(&payer, &link);
    let found = doctor(&payer);
    assert!(found.contains("token.refused"), "{found}");
}

#[test]
fn tokens_are_replaced_without_a_gap() {
    let (payer, shop) = pair();
    let folder = tempfile::tempdir().unwrap();
    let first = rialto(&shop, &["account", "add-token", "payer"]);
    let mut link = peer("shop", "test.shop");
    link["http"] = json!({"url": shop.ilp_url("payer"), "token": first["incoming_token"]});
    payer.account(link);
    let (stop, failed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(Mutex::new(Vec::new())),
    );
    let paid = thread::scope(|scope| {
        let paying = scope.spawn(|| {
            let mut paid = 0;
            while !stop.load(Ordering::Relaxed) {
                let payment = pay(&payer, &shop, &format!("payment-{paid}"));
                if payment["state"] != "completed" {
                    failed.lock().unwrap().push(payment);
                }
                paid += 1;
            }
            paid
        });
        let mut old = first["id"].as_str().unwrap().to_owned();
        for _ in 0..5 {
            let new = rialto(&shop, &["account", "add-token", "payer"]);
            let file = private_file(
                folder.path(),
                "new",
                new["incoming_token"].as_str().unwrap(),
            );
            let url = shop.ilp_url("payer");
            rialto(
                &payer,
                &[
                    "account",
                    "update",
                    "shop",
                    "--http-url",
                    &url,
                    "--http-token-file",
                    &file,
                ],
            );
            // What was sent with the old one has come by then.
            let before = shop.ok("GET", "/v1/accounts/payer", None)["stats"]["prepares_in"].clone();
            wait_for("packets with the new token", || {
                let now =
                    shop.ok("GET", "/v1/accounts/payer", None)["stats"]["prepares_in"].clone();
                (now.as_u64()? > before.as_u64().unwrap_or(0) + 5).then_some(())
            });
            rialto(&shop, &["account", "remove-token", "payer", &old]);
            old = new["id"].as_str().unwrap().to_owned();
        }
        stop.store(true, Ordering::Relaxed);
        paying.join().unwrap()
    });
    assert!(failed.lock().unwrap().is_empty(), "{failed:?}");
    let tokens = shop.ok("GET", "/v1/accounts/payer", None)["incoming_tokens"].clone();
    assert_eq!(tokens.as_array().unwrap().len(), 1, "{tokens}");
    println!("reliability: tokens | 5 replaced under {paid} payments | 0 packets refused");
}

#[test]
fn our_own_tokens_are_renewed_before_they_end() {
    let payer = Node::start("payer", "test.payer", "");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/ilp", listener.local_addr().unwrap());
    let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let tokens = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (mut stream, mut head) = (stream, [0; 4096]);
            let read = stream.read(&mut head).unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            let token = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("authorization")
                    .then(|| value.to_owned())
            });
            tokens.lock().unwrap().extend(token);
            let _ = stream
                .write_all(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let mut wallet = peer("wallet", "test.payer.wallet");
    wallet["relation"] = "local".into();
    payer.account(wallet);
    let mut link = peer("shop", "test.shop");
    link["http"] = json!({
        "url": url, "token": SECRET, "jwt": {"algorithm": "HS256", "subject": "us", "lifetime_seconds": 30},
    });
    payer.account(link);
    wait_for("a second token", || {
        let ping = json!({"account": "wallet", "destination": "test.shop", "amount": "1"});
        payer.call("POST", "/v1/ping", Some(ping));
        (seen.lock().unwrap().len() >= 2).then_some(())
    });
    let lives = seen
        .lock()
        .unwrap()
        .iter()
        .map(|token| {
            let payload = token.split('.').nth(1).unwrap();
            let claims: Value =
                serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
            assert_eq!(claims["sub"], "us");
            (
                claims["iat"].as_i64().unwrap(),
                claims["exp"].as_i64().unwrap(),
            )
        })
        .collect::<BTreeSet<_>>();
    let mut lives = lives.into_iter();
    let (first, second) = (lives.next().unwrap(), lives.next().unwrap());
    assert_eq!(first.1 - first.0, 30);
    assert!(
        second.0 < first.1,
        "the second was there before the first ended"
    );
}
