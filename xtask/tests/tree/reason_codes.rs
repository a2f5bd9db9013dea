//! The reference page of reason codes is made from the connector's table.

use std::{env, fmt::Write, fs};

use rialto_connector::Reason;

use super::{read, root};

const PAGE: &str = "docs/reference/reason-codes.md";

const HEAD: &str = "# Reason codes

<!-- Made by `cargo xtask gen` from the table in crates/connector/src/refusal.rs. -->

Every packet that is refused is refused for one of these reasons. The word is stable. The sender sees
the ILP code, the word and the general text. Requests that fail to authenticate are answered by their
protocol (HTTP 401, BTP error), not by an ILP packet. An answer that comes from further on
(`peer.reject`) is passed on as it is.

| Reason | ILP code | Text | What to look at |
|---|---|---|---|
";

/// What an operator can do.
fn advice(reason: Reason) -> &'static str {
    use Reason as R;
    match reason {
        R::AuthMissing => {
            "The peer sends no `Authorization: Bearer` header, and shows no certificate whose key is known."
        }
        R::AuthUnknownToken => "The token the peer sends is not the account's incoming token.",
        R::AuthExpiredToken => "The peer still uses a token from before the last rotation.",
        R::PacketMalformed => "The peer's software.",
        R::PacketExpired => "The clocks of both nodes; slow links before us.",
        R::PacketTooLarge => "The peer's software: data is at most 32767 bytes.",
        R::AddressInvalid => "The sender's destination.",
        R::RouteNone => "`rialto route`; whether the destination's account exists.",
        R::RouteLoop => "Static routes of two nodes that point at each other.",
        R::RoutesMalformed => "The peer's software; `rialto route peers`.",
        R::RoutesGap => "Nothing, if it happens now and then: the missing update is asked for.",
        R::RateNone => "`rialto rate`: no rate is set between the two assets.",
        R::RateStale => "Whatever sets the rate has stopped: its `valid_until` has passed.",
        R::RoundsToZero => "Nothing: the packet is too small to convert.",
        R::Overflow => "The rate and the scales of the two assets.",
        R::NoAddress => "`rialto status` says why the parent gave no address.",
        R::AccountPaused => "The account is paused; resume it when that was not meant.",
        R::PacketLimit => "Nothing: senders adapt. The account's `packet_amount_max`.",
        R::CreditLimit => "The account has used its credit: settle, or change `balance_min`.",
        R::UnsyncedCap => {
            "The disk is too slow for the cap; `limits.unsynced`, `unsynced_amount_max`."
        }
        R::InFlightLimit => "A slow next hop, or `in_flight_count_max` and `in_flight_amount_max`.",
        R::RateLimit => "The account's `packets_per_minute`.",
        R::AmountRateLimit => "The account's `amount_per_minute`.",
        R::ExpiryTooSoon => "Senders with short expiries; `node.min_message_window_ms`.",
        R::ExpiryTimedOut => "The next hop, or one after it, is slow or gone.",
        R::LinkDns => "The host name in the account's URL.",
        R::LinkConnect => "Whether the peer runs and its port is open.",
        R::LinkTls => "The peer's certificate; `node.tls_roots_file` for private roots.",
        R::LinkHttp401 => "The token we send: the peer has another one.",
        R::LinkHttp403 => "Ask the peer; something in front of it refuses us.",
        R::LinkHttp404 => "The path in the account's URL.",
        R::LinkHttp413 => "A proxy before the peer with too small a limit for bodies.",
        R::LinkHttp429 => "The peer limits our requests.",
        R::LinkHttp5xx => "The peer, or the proxy before it.",
        R::LinkContentType => "The URL leads to something that is no ILP endpoint.",
        R::LinkBadReply => {
            "The URL leads to something that is no ILP endpoint, or the peer is broken."
        }
        R::LinkTimeout => "The peer accepts connections but does not read.",
        R::LinkPace => {
            "Nothing: senders slow down. `limits.packets_out_per_second` of the next hop's account."
        }
        R::LinkClosed => "The peer is not connected, or does not read; `rialto account`.",
        R::ConditionMismatch => "The next hop sent a wrong preimage: its software is wrong.",
        R::EngineNone => {
            "`rialto account update NAME --engine-url`, if the peer's engine is to be talked to."
        }
        R::EngineRefused => "What came with the reject, and the log of the settlement engine.",
        R::EngineFailed => "Whether the settlement engine runs, and its log.",
        R::EngineBusy => "Whether the settlement engine answers, and what floods it.",
        R::AccountingFailed => {
            "Whether the accounting system at `engine.accounting_url` runs, and its own link to the other side."
        }
        R::ChannelFrame => {
            "The version of the peer's node, and the log: it names what is wrong with the frame."
        }
        R::PeerReject => "The text and the code name who rejected.",
        R::Drain => "Nothing: the node is being stopped.",
        R::Overload => "The load; more packets are in flight than the node's bound.",
        R::Internal => "The log.",
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for reason in Reason::ALL {
        let row = reason.row();
        let advice = advice(reason);
        writeln!(
            page,
            "| `{}` | {} | {} | {advice} |",
            row.word, row.code, row.message
        )
        .expect("a String takes everything");
    }
    page
}

#[test]
fn reason_codes_page_is_current() {
    if env::var_os("UPDATE").is_some() {
        fs::write(root().join(PAGE), page()).expect("the page can be written");
    }
    assert!(
        read(PAGE) == page(),
        "{PAGE} differs from the table: run `cargo xtask gen`"
    );
}
