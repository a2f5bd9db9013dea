//! Stories: on each line what happens and, after the arrow, all that comes of it.
//!
//! ```text
//! node g.hub [window 1s] [hold 30s] [spread 0.01] [strict] [second-approver] [pending N] [cap USD/9=N]
//! account NAME ASSET [peer|parent|child|local] [SETTING]…   update NAME SETTING…   delete NAME
//! route PREFIX -> NAME        route PREFIX -> NAME=WEIGHT+NAME=WEIGHT        route PREFIX none
//! rate USD EUR 0.92 [spread X] [until TIME]                 rate USD EUR none
//! NAME prepare N DESTINATION AMOUNT [expires TIME] [condition X] [data TEXT | size BYTES | echo A]
//! NAME bytes N HEX            NAME fulfill N [wrong]        NAME garbage N
//! NAME reject N CODE [F08 RECEIVED MAXIMUM]                 NAME fail N FAILURE
//! NAME up      NAME down [SESSION]
//! NAME pays NAME AMOUNT [key K] [deliver] [packet MAX] [to ADDRESS]     stop PAYMENT
//! settle NAME [AMOUNT [key K]]     retry SETTLEMENT     cancel SETTLEMENT      engine accepts|refuses|silent SETTLEMENT
//! record NAME paid|received AMOUNT REFERENCE by WHO [key K]    approve SETTLEMENT by WHO [key K]    decline SETTLEMENT by WHO    hand -> SETTLEMENT STATE REFERENCE    prepaid NAME -> AMOUNT
//! NAME message TEXT (to its peer)   NAME long-message BYTES   NAME takes-wrong   NAME fails FAILURE
//! engine replies|objects MESSAGE TEXT   engine breaks|replies-long MESSAGE
//! NAME introduced yes|no   NAME closed ENGINE yes|refused|no      NAME credited KEY AMOUNT/SCALE          settled ASSET -> N      leftover NAME -> AMOUNT/SCALE
//! NAME quotes NAME          NAME pings ADDRESS AMOUNT       reload ADDRESS NODE-SETTING…
//! wait TIME    doze TIME (the timer oversleeps)    clock +TIME | -TIME    sync    drain    journal fails    restart [checkpoint]
//! account words for routes: ccp (told, and asked unless a child), no-ccp, asked (we ask), routes-max N, under PREFIX
//! NAME asks TABLE EPOCH   NAME asks same EPOCH   NAME asks idle    NAME takes [TEXT]    NAME declines CODE [TEXT]    NAME ignores
//! NAME tells TABLE FROM-TO/CURRENT [+PREFIX=PATH,PATH]… [-PREFIX]…
//! balances -> NAME N, held N          position ASSET -> N   exposure NAME -> count, value, unsynced
//! ```
//!
//! A line of what comes matches when its words stand among the actual ones in that order.

use std::collections::BTreeMap;

use bytes::Bytes;
use rialto_connector::{
    Action, Asked, Durable, Effect, EngineAsk, Event, Input, LinkFailure, LinkId, RequestId,
    Settings, TableId,
    command::{Made, PaymentRequest, PingOutcome},
    hand::HandRequest,
    messages::{MessageAnswer, MessageId, MessageOutcome},
    settle::{Credited, EngineAnswer},
};
use rialto_ledger::{
    AccountId, AccountSettings, AccountTerms, Direction, HandState, HttpLink, PaymentId, Rate,
    Relation, SealedSecret, SettlementId,
};
use rialto_packet::{
    Addr, ErrorCode, FulfillBuilder, PEER_CONDITION, Prepare, RejectBuilder, Reply,
    f08::AmountTooLarge,
    ildcp,
    money::{Asset, Ratio},
    oer,
};
use rialto_stream::{SenderConfig, Target};

use crate::node::{MS, Node, payment_words, prepare_bytes, reply, sha256};

/// Runs a story with a node called g.hub, unless its first line says otherwise, and gives the node
/// back after all its packets have ended.
#[track_caller]
pub(crate) fn check(text: &str) -> Node {
    let mut node = play(text);
    node.finish();
    node
}

/// The same, in the midst of the story.
#[track_caller]
pub(crate) fn play(text: &str) -> Node {
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .peekable();
    let first = lines.next_if(|line| line.starts_with("node "));
    let mut story = Story {
        node: Node::new(settings(first.unwrap_or("node g.hub"))),
        forwarded: Vec::new(),
        messages: Vec::new(),
        told_table: TableId::NONE,
        senders: BTreeMap::new(),
        lines: Vec::new(),
    };
    for line in lines {
        let (command, expected) = match line.split_once("->") {
            Some((command, expected)) => (command.trim(), expected.trim()),
            None => (line, ""),
        };
        // The arrow of a route is part of it.
        let (command, expected) = if command.starts_with("route ") && !command.ends_with("none") {
            let (next_hop, expected) = expected.split_once("->").unwrap_or((expected, ""));
            (format!("{command} {next_hop}"), expected.trim())
        } else {
            (command.to_owned(), expected)
        };
        let words: Vec<_> = command.split_whitespace().collect();
        story.lines.clear();
        story.run(&words);
        if words[0] != "doze" {
            let effects = story.node.settle();
            story.tell(effects);
        }
        let wanted: Vec<_> = expected
            .split(", ")
            .filter(|part| !part.is_empty() && *part != "ignored")
            .collect();
        let same = wanted.len() == story.lines.len()
            && wanted
                .iter()
                .zip(&story.lines)
                .all(|(wanted, actual)| stands_in(wanted, actual));
        assert!(
            same,
            "\n    story: {line}\n   actual: {}\n",
            story.lines.join(", ")
        );
    }
    story.node
}

/// Whether all words of `wanted` stand in `actual`, in that order.
fn stands_in(wanted: &str, actual: &str) -> bool {
    let mut actual = actual.split_whitespace();
    wanted
        .split_whitespace()
        .all(|word| actual.any(|other| other == word))
}

pub(crate) struct Story {
    pub(crate) node: Node,
    /// What was sent on: the number of the packet in the story, and its name on its link.
    forwarded: Vec<(u64, LinkId, RequestId)>,
    /// Messages to neighbours that the node sent and nobody answered yet.
    pub(crate) messages: Vec<(LinkId, RequestId)>,
    /// The table that the node names in its updates.
    pub(crate) told_table: TableId,
    /// Who sent which packet.
    senders: BTreeMap<u64, String>,
    /// What came of the present line.
    pub(crate) lines: Vec<String>,
}

/// The value after the word `key`.
fn after<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| *word == key)?;
    Some(words.get(at + 1).unwrap_or_else(|| panic!("{key} what?")))
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.replace('_', "")
        .parse()
        .unwrap_or_else(|_| panic!("'{text}' is no number"))
}

fn optional<T: std::str::FromStr>(text: &str) -> Option<T> {
    (text != "none").then(|| number(text))
}

fn ms(text: &str) -> i64 {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        other => panic!("'{other}' is no unit of time"),
    };
    number::<i64>(digits) * unit
}

fn time(ms: i64) -> String {
    if ms % 1000 == 0 {
        format!("{}s", ms / 1000)
    } else {
        format!("{ms}ms")
    }
}

fn settings(line: &str) -> Settings {
    let words: Vec<_> = line.split_whitespace().collect();
    let mut settings = Settings::new(words[1].parse().unwrap());
    if let Some(window) = after(&words, "window") {
        settings.min_message_window_ms = ms(window);
    }
    if let Some(hold) = after(&words, "hold") {
        settings.max_hold_ms = ms(hold);
    }
    if let Some(spread) = after(&words, "spread") {
        settings.spread = spread.parse::<Ratio>().unwrap();
    }
    if let Some(pending) = after(&words, "pending") {
        settings.pending_max = number(pending);
    }
    if let Some((asset, cap)) = after(&words, "cap").and_then(|cap| cap.split_once('=')) {
        settings
            .unsynced_max
            .insert(asset.parse().unwrap(), number(cap));
    }
    settings.second_approver = words.contains(&"second-approver");
    settings.strict = words.contains(&"strict");
    settings
}

/// A new account's settings.
pub(crate) fn account(name: &str, asset: &str) -> AccountSettings {
    AccountSettings {
        name: name.to_owned(),
        incoming_tokens: Vec::new(),
        terms: AccountTerms::new(Relation::Peer, asset.parse::<Asset>().unwrap()).into(),
    }
}

fn change(settings: &mut AccountSettings, words: &[&str]) {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let limits = &mut settings.limits;
        let mut value = || *words.next().unwrap_or_else(|| panic!("{word} what?"));
        match *word {
            "peer" => settings.relation = Relation::Peer,
            "parent" => settings.relation = Relation::Parent,
            "child" => settings.relation = Relation::Child,
            "local" => settings.relation = Relation::Local,
            "paused" => settings.paused = true,
            "resumed" => settings.paused = false,
            "ccp" => {
                settings.routes.send = Some(true);
                settings.routes.receive = Some(settings.relation != Relation::Child);
            }
            "no-ccp" => {
                settings.routes.send = Some(false);
                settings.routes.receive = Some(false);
            }
            "asked" => settings.routes.receive = Some(true),
            "routes-max" => settings.routes.count_max = optional(value()),
            "under" => settings.routes.prefixes.push(value().parse().unwrap()),
            "down" => {}
            "http" => {
                settings.http = Some(HttpLink {
                    url: "http://peer.example".to_owned(),
                    token: Some(SealedSecret("sealed".to_owned())),
                    jwt: None,
                    callback: false,
                    tls_pins: Vec::new(),
                });
            }
            "credit" => limits.balance_min = -number::<i128>(value()),
            "packet" => limits.packet_amount_max = optional(value()),
            "packets/min" => limits.packets_per_minute = optional(value()),
            "packets-out/s" => limits.packets_out_per_second = optional(value()),
            "amount/min" => limits.amount_per_minute = optional(value()),
            "in-flight-count" => limits.in_flight_count_max = optional(value()),
            "in-flight-amount" => limits.in_flight_amount_max = optional(value()),
            "unsynced" => limits.unsynced_amount_max = optional(value()),
            "engine" => {
                let url = optional::<u16>(value()).map(|port| format!("http://engine:{port}"));
                settings.settlement.engine_url = url;
            }
            "threshold" => settings.settlement.threshold = optional(value()),
            "settle-to" => settings.settlement.settle_to = number(value()),
            "every" => settings.settlement.every_s = optional(value()),
            "at-least" => settings.settlement.amount_min = number(value()),
            "spread" => settings.spread = Some(value().to_owned()),
            "address" => settings.ilp_address = Some(value().parse().unwrap()),
            "asset" => settings.asset = value().parse().unwrap(),
            other => panic!("'{other}' is no setting of an account"),
        }
    }
}

/// The proof that packet `number` waits for.
fn fulfillment(number: u64) -> [u8; 32] {
    sha256(&number.to_be_bytes())
}

fn condition(word: Option<&str>, number: u64) -> [u8; 32] {
    match word {
        None => sha256(&fulfillment(number)),
        Some("peer") => PEER_CONDITION,
        Some("empty") => sha256(b""),
        Some("ping") => sha256(b"pingpingpingpingpingpingpingping"),
        Some("zero") => [0; 32],
        Some(other) => panic!("'{other}' is no condition"),
    }
}

pub(crate) fn failure(word: &str) -> LinkFailure {
    match word {
        "dns" => LinkFailure::Dns,
        "connect" => LinkFailure::Connect,
        "tls" => LinkFailure::Tls,
        "content_type" => LinkFailure::ContentType,
        "bad_reply" => LinkFailure::BadReply,
        "timeout" => LinkFailure::Timeout,
        "closed" => LinkFailure::Closed,
        status => LinkFailure::Http(number(status)),
    }
}

impl Story {
    fn run(&mut self, words: &[&str]) {
        match *words {
            ["account", name, asset, ref rest @ ..] => {
                let mut settings = account(name, asset);
                change(&mut settings, rest);
                let down = rest.contains(&"down") || rest.contains(&"local");
                self.operate(|core, _, out| core.account_create(settings, out));
                if self.lines.is_empty() && !down {
                    let (_, effects) = self.node.link_up(self.node.id(name));
                    self.tell(effects);
                }
            }
            ["update", name, ref rest @ ..] => {
                let account = self.node.core.ledger().account_by_name(name);
                let mut settings = AccountSettings::clone(&account.unwrap().settings);
                change(&mut settings, rest);
                self.node.limits_lowered = true;
                self.operate(|core, _, out| core.account_update(settings, out));
            }
            ["delete", name] => self.operate(|core, _, out| core.account_delete(name, out)),
            ["route", prefix, "none"] => {
                let prefix = prefix.parse().unwrap();
                self.operate(|core, _, out| core.route_delete(&prefix, out));
            }
            ["route", prefix, name] => {
                let prefix = if prefix == "everything" { "" } else { prefix };
                let prefix = prefix.parse().unwrap();
                let hops: Vec<_> = name
                    .split('+')
                    .map(|hop| match hop.split_once('=') {
                        Some((name, weight)) => (name.to_owned(), number(weight)),
                        None => (hop.to_owned(), 1),
                    })
                    .collect();
                self.operate(|core, _, out| core.route_put(prefix, &hops, out));
            }
            ["rate", from, to, "none"] => {
                self.operate(|core, _, out| core.rate_delete(from, to, out));
            }
            ["rate", from, to, rate, ref rest @ ..] => {
                let wall = self.node.now.wall;
                let until = after(rest, "until").map(|until| wall.plus_ms(ms(until)).unix_ms());
                let rate = Rate {
                    rate: rate.to_owned(),
                    spread: after(rest, "spread").map(ToOwned::to_owned),
                    valid_until_ms: until,
                    set_at_ms: None,
                };
                self.operate(|core, _, out| core.rate_put(from, to, rate, out));
            }
            ["wait", span] => {
                let ns = u64::try_from(ms(span)).unwrap() * MS;
                let effects = self.node.wait(ns);
                self.tell(effects);
            }
            // Time goes by and the timer has not gone off yet.
            ["doze", span] => {
                let ns = u64::try_from(ms(span)).unwrap() * MS;
                self.node.go_on_until(self.node.now.mono_ns + ns);
            }
            ["clock", step] => {
                let (sign, span) = step.split_at(1);
                let ms = if sign == "-" { -ms(span) } else { ms(span) };
                self.node.now.wall = self.node.now.wall.plus_ms(ms);
            }
            ["stop", id] => {
                let id = PaymentId(number(id));
                self.operate(|core, now, out| core.payment_stop(now, id, out));
            }
            ["reload", ref rest @ ..] => {
                let address = self.node.settings.address.clone();
                let mut settings = settings(&format!("node {}", rest.join(" ")));
                self.node.core.reload(settings.clone());
                settings.address = address;
                self.node.settings = settings;
            }
            ["sync"] => {
                let effects = self.node.sync();
                self.tell(effects);
            }
            ["drain"] => {
                let (_, effects) = self.node.step(|core, now, out| core.drain(now, out));
                self.tell(effects);
            }
            ["journal", "fails"] => self.node.core.journal_failed(),
            ["restart", ref rest @ ..] => {
                let effects = self.node.restart(rest.contains(&"checkpoint"));
                self.forwarded.clear();
                self.tell(effects);
            }
            ["settle", name, ref rest @ ..] => {
                let (amount, key) = match *rest {
                    [] => (None, format!("{:?}", self.node.core.lsn())),
                    [amount] => (Some(number(amount)), format!("{:?}", self.node.core.lsn())),
                    [amount, "key", key] => (Some(number(amount)), key.to_owned()),
                    _ => panic!("{rest:?}"),
                };
                self.operate(|core, now, out| core.settle_manual(now, name, amount, &key, out));
            }
            [
                "record",
                name,
                direction,
                amount,
                reference,
                "by",
                by,
                ref rest @ ..,
            ] => {
                let key = match *rest {
                    [] => format!("{:?}", self.node.core.lsn()),
                    ["key", key] => key.to_owned(),
                    _ => panic!("{rest:?}"),
                };
                let request = HandRequest {
                    account: name.to_owned(),
                    direction: match direction {
                        "paid" => Direction::Paid,
                        "received" => Direction::Received,
                        other => panic!("{other} is no direction"),
                    },
                    amount: number(amount),
                    reference: reference.replace('_', " "),
                    by: by.to_owned(),
                    idempotency_key: key,
                };
                self.operate(|core, now, out| core.hand_record(now, request, out));
            }
            ["approve", id, "by", by, ref rest @ ..] => {
                let key = match *rest {
                    [] => format!("approve {:?}", self.node.core.lsn()),
                    ["key", key] => key.to_owned(),
                    _ => panic!("{rest:?}"),
                };
                let id = SettlementId(number(id));
                self.operate(|core, now, out| core.hand_approve(now, id, by, &key, out));
            }
            ["decline", id, "by", by] => {
                let id = SettlementId(number(id));
                self.operate(|core, now, out| core.hand_decline(now, id, by, out));
            }
            ["prepaid", name] => {
                let account = self.node.core.ledger().account_by_name(name).unwrap();
                self.lines.push(account.prepaid().to_string());
            }
            ["hand"] => {
                let made = self.node.core.ledger().hand_settlements().values();
                let word = |state: &HandState| match state {
                    HandState::Proposed => "proposed",
                    HandState::Settled { .. } => "settled",
                    HandState::Declined { .. } => "declined",
                };
                let lines = made
                    .map(|made| format!("{} {} {}", made.id.0, word(&made.state), made.reference));
                self.lines.extend(lines);
            }
            ["retry", id] => {
                let id = SettlementId(number(id));
                self.operate(|core, now, out| core.settle_retry(now, id, out));
            }
            ["cancel", id] => {
                let id = SettlementId(number(id));
                self.operate(|core, _, out| core.settle_cancel(id, out));
            }
            ["engine", says @ ("accepts" | "refuses" | "silent"), id] => {
                let (id, message) = (SettlementId(number(id)), String::new());
                let answer = match says {
                    "accepts" => EngineAnswer::Accepted,
                    "refuses" => EngineAnswer::Refused { message },
                    "silent" => EngineAnswer::Unknown { message },
                    other => panic!("an engine does not {other}"),
                };
                let effects = self.node.handle(Input::Settled { id, answer });
                self.tell(effects);
            }
            ["engine", says, id, ref words @ ..] => {
                let (id, data) = (MessageId(number(id)), Bytes::from(words.join(" ")));
                let answer = match says {
                    "replies" => MessageAnswer::Answered(data),
                    "replies-long" => MessageAnswer::Answered(vec![0; 32_768].into()),
                    "objects" => MessageAnswer::Refused(data),
                    "breaks" => MessageAnswer::Failed,
                    other => panic!("an engine does not {other}"),
                };
                let effects = self.node.handle(Input::MessageAnswered { id, answer });
                self.tell(effects);
            }
            ["settled", asset] => {
                let asset: Asset = asset.parse().unwrap();
                let mut settled = self.node.core.ledger().settled();
                let (_, amount) = settled.find(|(of, _)| **of == asset).unwrap();
                self.lines.push(amount.to_string());
            }
            ["leftover", name] => {
                let leftover = self.node.core.ledger().leftover(self.node.id(name));
                self.lines.push(leftover.to_string());
            }
            ["balances"] => self.balances(),
            ["position", asset] => {
                let asset: Asset = asset.parse().unwrap();
                let mut positions = self.node.core.ledger().positions();
                let (_, amount, _) = positions.find(|(of, ..)| **of == asset).unwrap();
                self.lines.push(amount.to_string());
            }
            ["exposure", name] => {
                let account = self.node.core.ledger().account_by_name(name).unwrap();
                let exposure = account.exposure();
                self.lines.push(exposure.in_flight_count.to_string());
                self.lines.push(exposure.in_flight.to_string());
                self.lines.push(exposure.unsynced.to_string());
            }
            ["late", name] => {
                let stats = self.node.core.stats().account(self.node.id(name)).unwrap();
                self.lines.push(stats.late_fulfills.to_string());
                self.lines.push(stats.late_amount.to_string());
            }
            [name, ref rest @ ..] => self.act(name, rest),
            [] => unreachable!("empty lines are left out"),
        }
    }

    /// What a neighbour, or somebody with a local account, does.
    fn act(&mut self, name: &str, words: &[&str]) {
        match *words {
            [
                "asks" | "tells" | "takes" | "takes-wrong" | "declines" | "fails" | "loses"
                | "ignores",
                ..,
            ] => {
                self.route(name, words);
            }
            ["message", ref words @ ..] => {
                let (id, data) = (self.node.id(name), words.join(" "));
                self.message(id, data.as_bytes());
            }
            ["long-message", size] => {
                let (id, data) = (self.node.id(name), vec![b'x'; number(size)]);
                self.message(id, &data);
            }
            ["up"] => {
                let (_, effects) = self.node.link_up(self.node.id(name));
                self.tell(effects);
            }
            ["down"] => {
                let link = self.node.core.link_of(self.node.id(name)).unwrap();
                let effects = self.node.handle(Input::LinkDown { link });
                self.tell(effects);
            }
            ["down", serial] => {
                let link = session(number(serial));
                let effects = self.node.handle(Input::LinkDown { link });
                self.tell(effects);
            }
            ["prepare", number, destination, amount, ref rest @ ..] => {
                self.prepare(name, self::number(number), destination, amount, rest);
            }
            ["bytes", number, hex] => {
                let packet = hex::decode(hex).unwrap();
                self.ask(name, self::number(number), packet[..].into());
            }
            ["fulfill", number, ref rest @ ..] => {
                let number = self::number(number);
                let proof = if rest.contains(&"wrong") {
                    [1; 32]
                } else {
                    fulfillment(number)
                };
                let fulfill = FulfillBuilder {
                    fulfillment: proof,
                    data: b"thanks",
                };
                self.reply(name, number, reply(fulfill.encode().unwrap()));
            }
            ["reject", number, code, ref rest @ ..] => {
                let data = match *rest {
                    ["F08", received, maximum] => AmountTooLarge {
                        received_amount: self::number(received),
                        maximum_amount: self::number(maximum),
                    }
                    .to_bytes()
                    .to_vec(),
                    [] => Vec::new(),
                    _ => panic!("{rest:?}"),
                };
                let reject = RejectBuilder {
                    code: ErrorCode::from_bytes(code.as_bytes().try_into().unwrap()),
                    triggered_by: Some(Addr::new("g.far.away").unwrap()),
                    message: "no",
                    data: &data,
                };
                self.reply(name, self::number(number), reply(reject.encode().unwrap()));
            }
            ["garbage", number] => {
                self.reply(name, self::number(number), Bytes::from_static(b"nonsense"));
            }
            ["fail", number, word] => {
                let (link, request) = self.sent(name, self::number(number));
                let failure = failure(word);
                let effects = self.node.handle(Input::Failed {
                    link,
                    request,
                    failure,
                });
                self.tell(effects);
            }
            ["lose", number] => {
                let (link, request) = self.sent(name, self::number(number));
                let effects = self.node.handle(Input::Unanswered { link, request });
                self.tell(effects);
            }
            ["closed", by, answer] => {
                let message = String::new();
                let answer = match answer {
                    "yes" => EngineAnswer::Accepted,
                    "refused" => EngineAnswer::Refused { message },
                    _ => EngineAnswer::Unknown { message },
                };
                let (account, engine_url) = (self.node.id(name), format!("http://engine:{by}"));
                let effects = self.node.handle(Input::Closed {
                    account,
                    engine_url,
                    answer,
                });
                self.tell(effects);
            }
            ["introduced", answer] => {
                let message = String::new();
                let answer = match answer {
                    "yes" => EngineAnswer::Accepted,
                    _ => EngineAnswer::Unknown { message },
                };
                let account = self.node.id(name);
                let effects = self.node.handle(Input::Introduced { account, answer });
                self.tell(effects);
            }
            ["credited", key, quantity] => {
                let (account, quantity) = (self.node.id(name), quantity.parse().unwrap());
                let (done, effects) = self
                    .node
                    .step(|core, now, out| core.settle_credit(now, account, key, quantity, out));
                self.lines.push(match done {
                    Ok((Credited::New { amount }, lsn)) => format!("new {amount} lsn {}", lsn.0),
                    Ok((Credited::Before { amount }, _)) => format!("before {amount}"),
                    Err(error) => format!("{:?} {}", error.kind, error.field).to_lowercase(),
                });
                self.tell(effects);
            }
            ["pays", receiver, amount, ref rest @ ..] => {
                self.pay(name, receiver, number(amount), rest);
            }
            ["quotes", receiver] => {
                let spsp = self.node.core.spsp(receiver, None).unwrap().credentials;
                let (secret, address) = (spsp.shared_secret, spsp.destination_account);
                let config = SenderConfig::new(secret, address, Target::Probe);
                self.operate(|core, now, out| core.quote(now, name, config, out));
            }
            ["pings", destination, amount] => {
                let (destination, amount) = (destination.parse().unwrap(), number(amount));
                self.operate(|core, now, out| core.ping(now, name, &destination, amount, out));
            }
            _ => panic!("who does what? {name} {words:?}"),
        }
    }

    fn message(&mut self, account: AccountId, data: &[u8]) {
        let (sent, effects) = self
            .node
            .step(|core, now, out| core.message_send(now, account, data, out));
        if let Err(reason) = sent {
            self.lines.push(format!("unsent {}", reason.row().word));
        }
        self.tell(effects);
    }

    fn prepare(&mut self, from: &str, number: u64, destination: &str, amount: &str, rest: &[&str]) {
        let amount = match amount {
            "max" => u64::MAX,
            amount => self::number(amount),
        };
        let expires_at = match after(rest, "expires") {
            Some("never") => rialto_packet::Timestamp::MAX,
            Some(span) => self.node.now.wall.plus_ms(ms(span)),
            None => self.node.now.wall.plus_ms(10_000),
        };
        let data = if let Some(text) = after(rest, "data") {
            text.as_bytes().to_vec()
        } else if let Some(size) = after(rest, "size") {
            vec![0; self::number(size)]
        } else if let Some(source) = after(rest, "echo") {
            let mut data = b"ECHOECHOECHOECHO\0".to_vec();
            oer::put_var_octets(&mut data, source.as_bytes());
            data
        } else {
            Vec::new()
        };
        let condition = condition(after(rest, "condition"), number);
        let packet = prepare_bytes(amount, expires_at, condition, destination, &data);
        self.ask(from, number, packet);
    }

    pub(crate) fn ask(&mut self, from: &str, number: u64, packet: bytes::BytesMut) {
        let account = self.node.id(from);
        self.senders.insert(number, from.to_owned());
        let effects = self.node.handle(Input::Prepare {
            account,
            link: LinkId::Waiting { worker: 0 },
            request: RequestId(number),
            packet,
        });
        for effect in &effects {
            if let Action::Forward { link, request, .. } = effect.action {
                self.forwarded.push((number, link, request));
            }
        }
        self.tell(effects);
    }

    /// Where packet `number` was sent, or what `name` thinks it was.
    fn sent(&self, name: &str, number: u64) -> (LinkId, RequestId) {
        let id = self.node.id(name);
        let mut forwarded = self.forwarded.iter().rev();
        let found = forwarded.find(|(n, ..)| *n == number);
        match found {
            Some((_, link, request)) if self.node.account_of(*link) == id => (*link, *request),
            Some((.., request)) => (self.node.core.link_of(id).unwrap(), *request),
            None => (self.node.core.link_of(id).unwrap(), RequestId(number)),
        }
    }

    fn reply(&mut self, name: &str, number: u64, packet: Bytes) {
        let (link, request) = self.sent(name, number);
        let effects = self.node.handle(Input::Reply {
            link,
            request,
            packet,
        });
        self.tell(effects);
    }

    fn pay(&mut self, name: &str, receiver: &str, amount: u64, rest: &[&str]) {
        let target = if rest.contains(&"deliver") {
            Target::Deliver(amount)
        } else {
            Target::Send(amount)
        };
        let request = PaymentRequest {
            account: name.to_owned(),
            idempotency_key: after(rest, "key").unwrap_or("key").to_owned(),
            request: format!("{receiver} {target:?}"),
            receiver: format!("$hub.example/{receiver}"),
        };
        let (created, effects) = self
            .node
            .step(|core, now, out| core.payment_create(now, request, out));
        self.tell(effects);
        match created {
            Ok(Made::New(id)) => {
                let spsp = self.node.core.spsp(receiver, None).unwrap().credentials;
                let mut config =
                    SenderConfig::new(spsp.shared_secret, spsp.destination_account, target);
                config.packet_amount_max = after(rest, "packet").map(number);
                if let Some(destination) = after(rest, "to") {
                    config.destination = destination.parse().unwrap();
                }
                self.operate(|core, now, out| core.payment_start(now, id, config, out));
            }
            Ok(Made::Existing(id)) => {
                let payment = &self.node.core.ledger().payments()[&id];
                let progress = payment.progress;
                self.lines.push(format!(
                    "existing payment {} sent {} delivered {} {:?}",
                    id.0, progress.sent, progress.delivered, payment.end
                ));
            }
            Err(error) => self.lines.push(format!("{:?} {}", error.kind, error.field)),
        }
    }

    fn operate<T>(
        &mut self,
        command: impl FnOnce(
            &mut rialto_connector::Connector,
            rialto_connector::Now,
            &mut rialto_connector::Effects,
        ) -> Result<T, rialto_connector::command::CommandError>,
    ) {
        let (done, effects) = self.node.step(command);
        if let Err(error) = done {
            self.lines
                .push(format!("{:?} {}", error.kind, error.field).to_lowercase());
        }
        self.tell(effects);
    }

    fn balances(&mut self) {
        let ledger = self.node.core.ledger();
        for account in ledger.accounts() {
            let line = format!("{} {}", account.settings.name, account.balance());
            self.lines.push(line);
        }
        self.lines
            .push(format!("held {}", self.node.core.in_flight_count()));
    }

    pub(crate) fn tell(&mut self, effects: Vec<Effect>) {
        let mut refused = None;
        for effect in effects {
            match effect.action {
                Action::Report(Event::Refused { account, reason }) => {
                    refused = Some((account, reason));
                }
                Action::Forward {
                    link,
                    request,
                    packet,
                    ..
                } => self.tell_forward(link, request, &packet),
                Action::Answer {
                    request, packet, ..
                } => {
                    let reply = Reply::parse(packet).unwrap();
                    if let Some((_, reason)) = refused.take() {
                        let Reply::Reject(reject) = &reply else {
                            panic!("{reason:?}, but not rejected")
                        };
                        let row = reason.row();
                        assert_eq!(reject.message(), format!("{}: {}", row.word, row.message));
                    }
                    self.tell_answer(request, &reply, effect.after);
                }
                Action::Disconnect { link } => {
                    let LinkId::Session { serial, .. } = link else {
                        panic!("{link:?}")
                    };
                    let name = self.node.name(self.node.account_of(link));
                    self.lines.push(format!("disconnect {name} {serial}"));
                }
                Action::Report(Event::RouteTrouble {
                    account,
                    trouble,
                    prefix,
                }) => {
                    let (name, word) = (self.node.name(account), trouble.word());
                    self.lines.push(format!("trouble {name} {word} {prefix}"));
                }
                Action::Engine {
                    account,
                    asked,
                    ask,
                } => {
                    let Asked::Engine(engine_url) = asked else {
                        panic!("no account here has an accounting system")
                    };
                    let (name, by) = (self.node.name(account), engine_url.rsplit(':').next());
                    let by = by.unwrap();
                    match ask {
                        EngineAsk::Introduce => {
                            self.lines.push(format!("introduce {name} to {by}"))
                        }
                        EngineAsk::Close => self.lines.push(format!("close {name} by {by}")),
                        EngineAsk::Settle { id, quantity, .. } => self
                            .lines
                            .push(format!("settle {} {name} {quantity} by {by}", id.0)),
                        EngineAsk::Message {
                            id,
                            data,
                            deadline_ns,
                        } => {
                            let left_ns = deadline_ns - self.node.now.mono_ns;
                            let left = time(i64::try_from(left_ns / MS).unwrap());
                            let data = data.escape_ascii();
                            let id = id.0;
                            self.lines
                                .push(format!("relay {id} {name} {data} by {by} within {left}"));
                        }
                    }
                }
                Action::Report(
                    Event::AccountChanged { .. }
                    | Event::SettlementChanged { .. }
                    | Event::ChannelNote { .. },
                ) => {}
                Action::Report(
                    event @ (Event::AddressTaken { .. } | Event::AddressProblem { .. }),
                ) => {
                    panic!("{event:?}")
                }
                Action::Report(Event::LateFulfill { account, amount }) => {
                    let name = self.node.name(account);
                    self.lines.push(format!("late {name} {amount}"));
                }
                Action::Report(Event::PingDone { outcome, .. }) => {
                    let line = match outcome {
                        PingOutcome::Reached { round_trip_ns } => {
                            format!("reached {}ms", round_trip_ns / MS)
                        }
                        PingOutcome::Rejected { code, message, .. } => {
                            format!("unreached {code} {message}").replace(':', "")
                        }
                    };
                    self.lines.push(line);
                }
                Action::Report(Event::MessageDone { id, outcome }) => {
                    let line = match outcome {
                        MessageOutcome::Answered { data } => {
                            format!("answered {}", data.escape_ascii())
                        }
                        MessageOutcome::Rejected { code, data, .. } => {
                            format!("rejected {code} {}", data.escape_ascii())
                        }
                        MessageOutcome::Failed { reason } => {
                            format!("failed {}", reason.row().word)
                        }
                    };
                    self.lines.push(format!("message {} {line}", id.0));
                }
                Action::Report(Event::QuoteDone { outcome, .. }) => {
                    let line = match (&outcome.path, &outcome.stopped) {
                        (Some(path), None) => {
                            let max = path.packet_amount_max.map_or(0, |max| max);
                            let (asset, rate) = (&path.asset, path.rate());
                            format!("quote {asset} rate {rate} packet {max}")
                        }
                        (_, stopped) => format!("quote failed {stopped:?}"),
                    };
                    self.lines.push(line);
                }
                Action::Report(event @ Event::PaymentEnded { .. }) => {
                    self.lines.extend(payment_words(&self.node, &event));
                }
            }
        }
    }

    fn tell_forward(&mut self, link: LinkId, request: RequestId, packet: &[u8]) {
        let packet = Prepare::parse(packet).unwrap();
        let name = self.node.name(self.node.account_of(link));
        if let Some(line) = self.tell_message(link, request, &packet) {
            self.lines.push(format!("{name} {line}"));
            return;
        }
        let on = match link {
            LinkId::Session { serial, .. } => serial.to_string(),
            LinkId::Http(_) => "http".to_owned(),
            LinkId::Local | LinkId::Waiting { .. } => panic!("{link:?} is not sent to"),
        };
        let found = self
            .forwarded
            .iter()
            .find(|(_, l, r)| (*l, *r) == (link, request));
        let number = found.map_or(String::new(), |(number, ..)| format!("#{number} "));
        let left = time(packet.expires_at().ms_since(self.node.now.wall));
        let to = packet.destination();
        let data = packet.data().escape_ascii();
        let amount = packet.amount();
        self.lines.push(format!(
            "{name} prepare {number}{amount} expires {left} on {on} to {to} data {data}"
        ));
    }

    fn tell_answer(&mut self, request: RequestId, reply: &Reply<Bytes>, after: Durable) {
        let (number, name) = (request.0, &self.senders[&request.0]);
        let line = match reply {
            Reply::Fulfill(fulfill) => {
                let when = match after {
                    Durable::Nothing => String::new(),
                    Durable::Written(lsn) => format!("written {}", lsn.0),
                    Durable::Synced {
                        lsn,
                        no_later_than_ns,
                    } => {
                        let left_ns = no_later_than_ns.saturating_sub(self.node.now.mono_ns);
                        let left = time(i64::try_from(left_ns / MS).unwrap());
                        format!("synced {} within {left}", lsn.0)
                    }
                    Durable::OnDisk(lsn) => panic!("a Fulfill is never kept from {lsn:?} on"),
                };
                let data = match ildcp::Response::parse(fulfill.data()) {
                    Ok(config) => {
                        format!("address {} asset {}", config.client_address, config.asset)
                    }
                    Err(_) => format!("data {}", fulfill.data().escape_ascii()),
                };
                format!("{name} fulfill #{number} {when} {data}")
            }
            Reply::Reject(reject) => {
                let by = reject.triggered_by().map_or("nobody", Addr::as_str);
                let amounts = AmountTooLarge::parse(reject.data()).map_or(String::new(), |data| {
                    let (received, maximum) = (data.received_amount, data.maximum_amount);
                    format!("received {received} maximum {maximum}")
                });
                let message = reject.message().replace(':', "");
                let (code, data) = (reject.code(), reject.data().escape_ascii());
                let data = match amounts.is_empty() {
                    true => format!("data {data}"),
                    false => amounts,
                };
                format!("{name} reject #{number} {code} {message} by {by} {data}")
            }
        };
        self.lines.push(line);
    }
}

fn session(serial: u32) -> LinkId {
    LinkId::Session { worker: 0, serial }
}
