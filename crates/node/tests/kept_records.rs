//! Every kind of record that a node ever wrote is in a journal that is kept, in the bytes of its time;
//! and each of these journals still gives the books that are written down beside it.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{
    collections::BTreeSet,
    convert::Infallible,
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rialto_journal::{FileDisk, Journal, Options, Replay};
use rialto_ledger::{AccountId, Commit, Ledger, PaymentId, PaymentProgress, Record};

/// What journals are made of.
const TALE: &str = include_str!("tale.txt");

/// Beside the files of a kept journal: what they say.
const BOOKS: &str = "books.txt";

fn tests() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
}

/// In the order in which they were kept.
fn kept() -> Vec<PathBuf> {
    (1..)
        .map(|number| tests().join(format!("journal-{number}")))
        .take_while(|folder| folder.exists())
        .collect()
}

/// A journal as its files say it is, with the newest checkpoint or from the first record on.
fn read(folder: &Path, with_checkpoint: bool) -> Vec<Vec<u8>> {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is = |end| path.extension().is_some_and(|extension| extension == end);
        if is("segment") || with_checkpoint && is("checkpoint") {
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let mut records = Vec::new();
    let found = rialto_journal::inspect(&FileDisk::new(copy.path()), |replay| {
        let (Replay::Checkpoint { record: bytes, .. } | Replay::Record { payload: bytes, .. }) =
            replay;
        records.push(bytes.to_vec());
        Ok::<_, Infallible>(())
    });
    assert_eq!(found.unwrap().torn, None);
    records
}

/// The kinds of record that there are: those in JSON as their decoder names them, those in bytes, and what
/// came to be in some later.
fn kinds() -> BTreeSet<String> {
    let unknown = Record::decode(br#"{"record":""}"#).unwrap_err().to_string();
    let (_, known) = unknown.split_once("expected one of ").unwrap();
    let in_json = known.split('`').skip(1).step_by(2).map(str::to_owned);
    let beside = [
        "commit",
        "progress",
        "terms_kept",
        "account_kept",
        "account_kept with a pin",
        "route_put in bytes",
        "settlement_made that reports",
        "channel_put with a payment before",
    ];
    let kinds: BTreeSet<_> = in_json.chain(beside.map(str::to_owned)).collect();
    assert!(kinds.contains("account_put") && kinds.contains("counters"));
    kinds
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not in bytes is in JSON, whatever its kind"
)]
fn kind_of(bytes: &[u8]) -> String {
    match Record::decode(bytes).unwrap() {
        Record::Commit(_) => "commit".to_owned(),
        Record::Progress(_) => "progress".to_owned(),
        Record::TermsKept { .. } => "terms_kept".to_owned(),
        Record::AccountKept { tokens, .. } if tokens.iter().any(|token| token.pin) => {
            "account_kept with a pin".to_owned()
        }
        Record::AccountKept { .. } => "account_kept".to_owned(),
        Record::SettlementMade { settlement } if settlement.is_report() => {
            "settlement_made that reports".to_owned()
        }
        Record::ChannelPut { channel, .. } if channel.before.is_some() => {
            "channel_put with a payment before".to_owned()
        }
        Record::RoutePut { .. } if !bytes.starts_with(b"{") => "route_put in bytes".to_owned(),
        _ => {
            let json: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            json["record"].as_str().unwrap().to_owned()
        }
    }
}

fn kinds_in(folder: &Path) -> BTreeSet<String> {
    let all = [true, false].map(|with_checkpoint| read(folder, with_checkpoint));
    all.iter().flatten().map(|bytes| kind_of(bytes)).collect()
}

/// The books of some records, a line for everything in them. What comes to be in books later adds
/// lines where it is there, and changes none.
fn books(records: &[Vec<u8>]) -> String {
    let mut ledger = Ledger::default();
    for bytes in records {
        ledger.apply(&Record::decode(bytes).unwrap()).unwrap();
    }
    let mut text = String::new();
    for account in ledger.accounts() {
        let settings = &account.settings;
        writeln!(
            text,
            "account {} {} {:?} {} balance {} prepaid {} balance_min {} tokens {} paused {}",
            account.id.0,
            settings.name,
            settings.relation,
            settings.asset,
            account.balance(),
            account.prepaid(),
            settings.limits.balance_min,
            settings.incoming_tokens.len(),
            settings.paused,
        )
        .unwrap();
        for token in settings.incoming_tokens.iter().filter(|token| token.pin) {
            let (id, [first, ..], until) = (account.id.0, token.hash.0, token.expires_at_ms);
            writeln!(text, "pin {id} {first:02x} until {until:?}").unwrap();
        }
        let links = [
            settings
                .http
                .as_ref()
                .map(|http| (&http.token, &http.tls_pins)),
            settings.btp.as_ref().map(|btp| (&btp.token, &btp.tls_pins)),
        ];
        for (token, pins) in links
            .into_iter()
            .flatten()
            .filter(|(_, pins)| !pins.is_empty())
        {
            let (id, has_token) = (account.id.0, token.is_some());
            let pins: Vec<_> = pins.iter().map(ToString::to_string).collect();
            writeln!(text, "link {id} token {has_token} pins {}", pins.join(" ")).unwrap();
        }
        let leftover = ledger.leftover(account.id).to_string();
        if leftover != "0/0" {
            writeln!(text, "leftover {} {leftover}", account.id.0).unwrap();
        }
        for made in ledger.statements(account.id) {
            let (id, sent) = (account.id.0, account.sent());
            writeln!(
                text,
                "statement {id} {} {} then {sent}",
                made.number, made.closing
            )
            .unwrap();
        }
    }
    for ((asset, position, _), (_, settled)) in ledger.positions().zip(ledger.settled()) {
        writeln!(text, "asset {asset} position {position} settled {settled}").unwrap();
        let accounts = ledger.accounts();
        let balances: i128 = accounts
            .filter(|account| account.settings.asset == *asset)
            .map(rialto_ledger::Account::balance)
            .sum();
        assert_eq!(balances + position + settled, 0, "{asset}");
    }
    for (prefix, route) in ledger.routes() {
        let hops = route.hops();
        let hops = hops
            .iter()
            .map(|hop| format!(" {}x{}", hop.account.0, hop.weight));
        writeln!(text, "route {prefix}{}", hops.collect::<String>()).unwrap();
    }
    for ((from, to), rate) in ledger.rates() {
        writeln!(text, "rate {from} {to} {}", rate.rate).unwrap();
    }
    for (id, payment) in ledger.payments() {
        let progress = &payment.progress;
        writeln!(
            text,
            "payment {} key {} sent {} delivered {} end {:?}",
            id.0, payment.idempotency_key, progress.sent, progress.delivered, payment.end
        )
        .unwrap();
    }
    for invite in ledger.invites() {
        let used = invite.used.map(|used| used.account.0);
        let [first, ..] = invite.hash.0;
        writeln!(text, "invite {first:02x} {} used by {used:?}", invite.asset).unwrap();
    }
    for hash in ledger.blocked_callers() {
        let [first, ..] = hash.0;
        writeln!(text, "caller {first:02x} blocked").unwrap();
    }
    for request in ledger.peering_requests() {
        let [first, ..] = request.hash.0;
        writeln!(
            text,
            "peering request {first:02x} {} {} {} {:?}",
            request.from, request.ilp_address, request.asset, request.verdict
        )
        .unwrap();
    }
    for (id, adjustment) in ledger.adjustments() {
        writeln!(
            text,
            "adjustment {id} account {} key {} {}",
            adjustment.account.0, adjustment.idempotency_key, adjustment.amount
        )
        .unwrap();
    }
    for (id, settlement) in ledger.settlements() {
        writeln!(
            text,
            "settlement {} account {} key {} {} {:?} {:?}",
            id.0,
            settlement.account.0,
            settlement.key,
            settlement.amount,
            settlement.cause,
            settlement.state
        )
        .unwrap();
    }
    for (id, made) in ledger.hand_settlements() {
        writeln!(
            text,
            "by hand {} account {} {:?} {} reference {} by {} {:?}",
            id.0, made.account.0, made.direction, made.amount, made.reference, made.by, made.state
        )
        .unwrap();
    }
    for known in ledger.channels().values() {
        let channel = &known.channel;
        if let Some(opening) = &known.opening {
            let (number, key) = (known.number, &opening.idempotency_key);
            writeln!(
                text,
                "channel {number} asked for by {key} limits {} {}",
                opening.limit, opening.their_limit
            )
            .unwrap();
        }
        writeln!(
            text,
            "channel {} account {} {} ours {} theirs {} {:?}",
            known.number,
            known.account.0,
            channel.terms.asset,
            channel.ours.total,
            channel.theirs.total,
            channel.phase
        )
        .unwrap();
    }
    let keys: BTreeSet<String> = records
        .iter()
        .filter_map(|bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok())
        .filter_map(|json| {
            let by_channel = &json["money"]["credit"]["key"];
            let key = json["credit"]["key"].as_str().or(by_channel.as_str());
            Some(key?.to_owned())
        })
        .collect();
    for key in keys {
        let credit = ledger.credit_by_key(&key).unwrap();
        writeln!(
            text,
            "credit {key} account {} {} used {}",
            credit.account.0, credit.quantity, credit.at_ms
        )
        .unwrap();
    }
    writeln!(
        text,
        "next account {} payment {} settlement {}",
        ledger.next_account().0,
        ledger.next_payment().0,
        ledger.next_settlement().0
    )
    .unwrap();
    text
}

/// Writes the journal of the tale as a node of this version does, and what it says.
fn keep(folder: &Path) {
    let options = Options {
        id: 0x7261_6c74,
        ..Options::default()
    };
    let nothing = |_: Replay<'_>| Ok::<(), Infallible>(());
    let (journal, _) = Journal::open(Arc::new(FileDisk::new(folder)), options, nothing).unwrap();
    let (mut ledger, mut records) = (Ledger::default(), Vec::new());
    let encoded = |record: &Record| {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes
    };
    for line in TALE.lines().filter(|line| !line.starts_with('#')) {
        if line == "checkpoint" {
            let state = ledger.snapshot();
            journal
                .checkpoint(journal.appended(), state.map(|record| encoded(&record)))
                .unwrap();
            continue;
        }
        let record = record(line);
        ledger
            .apply(&record)
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        records.push(encoded(&record));
        journal.append(&encoded(&record)).unwrap();
    }
    journal.close().unwrap();
    drop(journal);
    fs::remove_file(folder.join("lock")).unwrap();
    fs::write(folder.join(BOOKS), books(&records)).unwrap();
}

/// A line of the tale: the two kinds that are not in JSON are their name and their numbers.
fn record(line: &str) -> Record {
    let (name, numbers) = line.split_once(' ').unwrap_or((line, ""));
    let numbers: Vec<u64> = numbers.split(' ').map_while(|it| it.parse().ok()).collect();
    let account = |number| AccountId(u32::try_from(number).unwrap());
    match (name, numbers.as_slice()) {
        ("commit", &[from, amount_in, to, amount_out]) => Record::Commit(Commit {
            from: account(from),
            amount_in,
            to: account(to),
            amount_out,
        }),
        ("progress", &[payment, sent, delivered, fulfilled, rejected]) => {
            Record::Progress(PaymentProgress {
                payment: PaymentId(payment),
                sent,
                delivered,
                fulfilled,
                rejected,
            })
        }
        _ => Record::decode(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}")),
    }
}

#[test]
fn records_of_every_kind_are_kept() {
    let missing = |folders: &[PathBuf]| -> Vec<String> {
        let kept = folders.iter().flat_map(|folder| kinds_in(folder));
        let kept: BTreeSet<_> = kept.collect();
        kinds().difference(&kept).cloned().collect()
    };
    let mut folders = kept();
    if env::var_os("UPDATE").is_some() && !missing(&folders).is_empty() {
        let made = tempfile::tempdir_in(tests()).unwrap();
        keep(made.path());
        folders.push(made.path().to_owned());
        if missing(&folders).is_empty() {
            let folder = tests().join(format!("journal-{}", folders.len()));
            fs::rename(made.keep(), &folder).unwrap();
            return;
        }
    }
    let missing = missing(&folders);
    assert!(
        missing.is_empty(),
        "no kept journal has a record of the kinds {missing:?}: add such records to \
         crates/node/tests/tale.txt, let `books` in kept_records.rs write a line for what is new, run \
         `UPDATE=1 cargo nextest run -p rialto-node kept`, and commit the folder that it makes"
    );
}

#[test]
fn kept_journals_say_what_they_said() {
    let folders = kept();
    assert!(folders.len() >= 3);
    let mut count = 0;
    for folder in folders {
        let beside = folder.join(BOOKS);
        if env::var_os("UPDATE").is_some() && !beside.exists() {
            fs::write(&beside, books(&read(&folder, false))).unwrap();
        }
        let said = fs::read_to_string(beside).unwrap();
        for with_checkpoint in [true, false] {
            let records = read(&folder, with_checkpoint);
            assert_eq!(books(&records), said, "{}", folder.display());
            count += 1;
        }
    }
    println!("reliability: journal | {count} readings of journals of earlier versions | 0 differ");
}
