//! The rules of a session as stories: on each line what happens and what comes of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::fmt::Write;

use rialto_btp::{
    ErrorCode,
    frame::{
        Body, ContentType, Entry, Frame, NewError, ProtocolData, put_error, put_message,
        put_response, put_transfer,
    },
    session::{CloseReason, Event, Session, Settings},
};
use rialto_packet::Timestamp;

const OPENED_NS: u64 = 5_000_000_000;
const NS_PER_S: u64 = 1_000_000_000;

fn wall() -> Timestamp {
    Timestamp::from_unix_ms(1_704_164_645_000)
}

/// A server without an account in its path.
#[track_caller]
fn server(story: &str) {
    let session = Session::server(Settings::default(), OPENED_NS, wall(), None);
    check(session, story);
}

/// A server that has authenticated its client.
#[track_caller]
fn established(story: &str) {
    let mut session = Session::server(Settings::default(), OPENED_NS, wall(), None);
    let mut out = Vec::new();
    let auth = frame("message 0 auth auth_token=shh");
    session.handle_frame(OPENED_NS, &auth, &mut out);
    session.accept(OPENED_NS, &mut out).unwrap();
    check(session, story);
}

/// A client that has sent its authentication.
#[track_caller]
fn client(story: &str) {
    let mut out = Vec::new();
    let settings = Settings::default();
    let session = Session::client(settings, OPENED_NS, wall(), "bob", "shh", &mut out);
    check(session, story);
}

#[track_caller]
fn check(mut session: Session, story: &str) {
    let mut now_ns = OPENED_NS;
    let mut happened = String::new();
    let mut expected = String::new();
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (input, outcome) = line.split_once("->").expect("a line has an outcome");
        let (input, outcome) = (input.trim(), outcome.trim());
        writeln!(expected, "{input} -> {outcome}").unwrap();
        let came = step(&mut session, &mut now_ns, input);
        writeln!(happened, "{input} -> {came}").unwrap();
    }
    assert_eq!(
        happened, expected,
        "\nhappened:\n{happened}\nexpected:\n{expected}"
    );
}

fn step(session: &mut Session, now_ns: &mut u64, input: &str) -> String {
    let mut outcomes = Vec::new();
    let mut out = Vec::new();
    let words: Vec<&str> = input.split_whitespace().collect();
    match words.as_slice() {
        ["wait", time] => {
            let until_ns = *now_ns + nanoseconds(time);
            while let Some(at_ns) = session.poll_timeout().filter(|at_ns| *at_ns <= until_ns) {
                let event = session.handle_timeout(at_ns);
                outcomes.push(describe_event(&event, &[]));
                assert_ne!(
                    session.poll_timeout(),
                    Some(at_ns),
                    "the timer stands still"
                );
            }
            *now_ns = until_ns;
            assert!(matches!(session.handle_timeout(until_ns), Event::Nothing));
        }
        ["sleep", time] => *now_ns += nanoseconds(time),
        ["pong"] => session.handle_ping_or_pong(*now_ns),
        ["accept"] => match session.accept(*now_ns, &mut out) {
            Ok(()) => outcomes.push("accepted".to_owned()),
            Err(error) => outcomes.push(error.to_string()),
        },
        ["refuse"] => match session.refuse(*now_ns, &mut out) {
            Ok(reason) => outcomes.push(describe_reason(reason)),
            Err(error) => outcomes.push(error.to_string()),
        },
        ["closed"] => outcomes.extend(session.handle_closed().map(describe_reason)),
        ["supersede"] => outcomes.extend(session.supersede().map(describe_reason)),
        ["send", what, request_id] => {
            let request_id = request_id.parse().unwrap();
            let result = match *what {
                "prepare" => session.send_prepare(request_id, b"\x0cp", &mut out),
                "fulfill" => session.send_reply(request_id, b"\x0df", &mut out),
                unknown => panic!("cannot send {unknown}"),
            };
            outcomes.extend(result.err().map(|error| error.to_string()));
        }
        ["garbage", count] => {
            for _ in 0..count.parse().unwrap() {
                let event = session.handle_frame(*now_ns, b"??", &mut out);
                outcomes.push(describe_event(&event, b"??"));
            }
        }
        _ => {
            let bytes = frame(input);
            let event = session.handle_frame(*now_ns, &bytes, &mut out);
            outcomes.push(describe_event(&event, &bytes));
        }
    }
    if !out.is_empty() {
        outcomes.push(format!("sends {}", describe_frame(&out)));
    }
    outcomes.retain(|outcome| !outcome.is_empty());
    if outcomes.is_empty() {
        return "nothing".to_owned();
    }
    outcomes.join(", ")
}

fn nanoseconds(text: &str) -> u64 {
    match text.strip_suffix("ms") {
        Some(ms) => ms.parse::<u64>().unwrap() * 1_000_000,
        None => text.strip_suffix('s').unwrap().parse::<u64>().unwrap() * NS_PER_S,
    }
}

/// `message 5 ilp=prepare custom=x`, `error 5 F00`, `transfer 5 10`, or `hex 0600…`.
fn frame(text: &str) -> Vec<u8> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if let ["hex", hex] = words.as_slice() {
        return hex::decode(hex).unwrap();
    }
    let request_id = words[1].parse().unwrap();
    let entries: Vec<_> = words[2..].iter().map(|word| entry(word)).collect();
    let mut out = Vec::new();
    match words[0] {
        "message" => put_message(&mut out, request_id, &entries),
        "response" => put_response(&mut out, request_id, &entries),
        "transfer" => put_transfer(&mut out, request_id, words[2].parse().unwrap(), &[]),
        "error" => {
            let code = ErrorCode::from_bytes(words[2].as_bytes().try_into().unwrap());
            let error = NewError {
                code,
                name: code.name(),
                triggered_at: wall(),
                data: "",
            };
            put_error(&mut out, request_id, &error, &[])
        }
        unknown => panic!("unknown input {unknown}"),
    }
    .unwrap();
    out
}

fn entry(word: &str) -> Entry<'_> {
    let (name, data) = word.split_once('=').unwrap_or((word, ""));
    Entry {
        name,
        content_type: ContentType::OCTET_STREAM,
        data: match data {
            "prepare" => b"\x0cp",
            "fulfill" => b"\x0df",
            "reject" => b"\x0er",
            "not-utf8" => b"\xff",
            other => other.as_bytes(),
        },
    }
}

fn describe_event(event: &Event<'_>, bytes: &[u8]) -> String {
    match event {
        Event::Nothing => String::new(),
        Event::Authenticate { username, token } => {
            let token = token.expose().escape_ascii();
            format!(
                "authenticate {} with '{token}'",
                username.unwrap_or("somebody")
            )
        }
        Event::Deferred => "deferred".to_owned(),
        Event::Established => "established".to_owned(),
        Event::Prepare { request_id, ilp } => {
            assert_eq!(&bytes[ilp.clone()], b"\x0cp");
            format!("prepare {request_id}")
        }
        Event::Reply { request_id, ilp } => match bytes[ilp.clone()] {
            [13, b'f'] => format!("fulfill {request_id}"),
            [14, b'r'] => format!("reject {request_id}"),
            _ => panic!("the range is wrong"),
        },
        Event::PeerError { request_id, error } => format!("peer error {request_id} {}", error.code),
        Event::BadReply { request_id } => format!("bad reply {request_id}"),
        Event::Ping => "ping".to_owned(),
        Event::Close(reason) => describe_reason(*reason),
    }
}

fn describe_reason(reason: CloseReason) -> String {
    match reason {
        CloseReason::AuthRejected(Some(code)) => format!("close, rejected with {code}"),
        CloseReason::AuthRejected(None) => "close, rejected".to_owned(),
        CloseReason::AuthTimeout => "close, authentication too late".to_owned(),
        CloseReason::AuthRefused => "close, refused".to_owned(),
        CloseReason::PeerSilent => "close, peer silent".to_owned(),
        CloseReason::Garbage => "close, garbage".to_owned(),
        CloseReason::Superseded => "close, superseded".to_owned(),
        CloseReason::SocketClosed => "close, socket closed".to_owned(),
    }
}

/// In the words that [`frame`] reads; errors with their text.
fn describe_frame(bytes: &[u8]) -> String {
    let frame = Frame::decode(bytes).unwrap();
    let entries = |protocol_data: ProtocolData<'_>| -> String {
        let describe = |entry: Entry<'_>| match entry.data {
            [] => format!(" {}", entry.name),
            b"\x0cp" => format!(" {}=prepare", entry.name),
            b"\x0df" => format!(" {}=fulfill", entry.name),
            data => format!(" {}={}", entry.name, data.escape_ascii()),
        };
        protocol_data.iter().map(describe).collect()
    };
    let id = frame.request_id;
    match frame.body {
        Body::Message(data) => format!("message {id}{}", entries(data)),
        Body::Response(data) => format!("response {id}{}", entries(data)),
        Body::Error(error, _) => {
            format!("error {id} {} '{}'", error.code, error.data.escape_ascii())
        }
        Body::Transfer { amount, .. } => format!("transfer {id} {amount}"),
    }
}

#[test]
fn a_server_answers_a_right_token_with_an_empty_response() {
    server(
        "
        message 9 auth auth_username=bob auth_token=shh -> authenticate bob with 'shh'
        accept                                          -> accepted, sends response 9
        message 5 ilp=prepare                           -> prepare 5
        send fulfill 5                                  -> sends response 5 ilp=fulfill
    ",
    );
}

#[test]
fn the_order_of_the_secondary_entries_is_free() {
    server(
        "
        message 9 auth x=y auth_token=shh auth_username=bob -> authenticate bob with 'shh'
    ",
    );
}

#[test]
fn a_token_alone_names_the_account() {
    server("message 9 auth auth_token=shh               -> authenticate somebody with 'shh'");
    server("message 9 auth auth_token=shh auth_username -> authenticate somebody with 'shh'");
    server("message 9 auth auth_token                   -> authenticate somebody with ''");
}

#[test]
fn path_and_username_have_to_agree() {
    let bob = || {
        Session::server(
            Settings::default(),
            OPENED_NS,
            wall(),
            Some("bob".to_owned()),
        )
    };
    check(
        bob(),
        "
        message 9 auth auth_username=bob auth_token=shh -> authenticate bob with 'shh'
    ",
    );
    check(
        bob(),
        "
        message 9 auth auth_token=shh -> authenticate somebody with 'shh'
    ",
    );
    check(bob(), "
        message 9 auth auth_username=eve auth_token=shh -> close, refused, sends error 9 F00 'authentication failed'
    ");
}

#[test]
fn whatever_is_wrong_with_an_authentication_the_answer_is_the_same() {
    server(
        "
        message 9 auth auth_token=wrong -> authenticate somebody with 'wrong'
        refuse                          -> close, refused, sends error 9 F00 'authentication failed'
        message 9 auth auth_token=shh   -> nothing
    ",
    );
    for first in [
        "message 9 auth",
        "message 9 auth_token=shh auth",
        "message 9 auth auth_token=shh auth_username=not-utf8",
        "message 9 ilp=prepare",
        "message 9",
        "response 9 auth auth_token=shh",
        "transfer 9 10",
        "error 9 F00",
        // `auth_token` twice.
        "hex 0600000009290103046175746800000a617574685f746f6b656e01037368680a617574685f746f6b656e0103736868",
        // Truncated.
        "hex 06000000090201",
    ] {
        server(&format!(
            "
            {first} -> close, refused, sends error 9 F00 'authentication failed'
            message 9 auth auth_token=shh -> nothing
        "
        ));
    }
    server("garbage 1 -> close, refused");
}

#[test]
fn a_late_authentication_is_not_heard() {
    server(
        "
        wait 9999ms                   -> nothing
        message 9 auth auth_token=shh -> authenticate somebody with 'shh'
        wait 1ms                      -> close, authentication too late
        accept                        -> no BTP authentication waits for a decision
    ",
    );
    server(
        "
        wait 10s                      -> close, authentication too late
        message 9 auth auth_token=shh -> nothing
    ",
    );
    // The frame is read before the timer is looked at.
    server(
        "
        sleep 10s                     -> nothing
        message 9 auth auth_token=shh -> close, authentication too late
    ",
    );
}

#[test]
fn a_websocket_ping_before_authentication_buys_no_time() {
    server(
        "
        wait 9s -> nothing
        pong    -> nothing
        wait 1s -> close, authentication too late
    ",
    );
}

#[test]
fn a_message_right_behind_the_authentication_waits_for_the_decision() {
    server(
        "
        message 9 auth auth_token=shh -> authenticate somebody with 'shh'
        message 5 ilp=prepare         -> deferred
        accept                        -> accepted, sends response 9
        message 5 ilp=prepare         -> prepare 5
    ",
    );
}

#[test]
fn a_second_authentication_changes_nothing() {
    established(
        "
        message 9 auth auth_username=eve auth_token=x -> sends error 9 F00 'already authenticated'
        accept                                        -> no BTP authentication waits for a decision
        message 5 ilp=prepare                         -> prepare 5
    ",
    );
}

#[test]
fn nothing_is_sent_without_authentication() {
    server(
        "
        send prepare 1                -> BTP session is not authenticated
        message 9 auth auth_token=shh -> authenticate somebody with 'shh'
        send fulfill 1                -> BTP session is not authenticated
    ",
    );
    client(
        "
        send prepare 1 -> BTP session is not authenticated
        response 0     -> established
        send prepare 1 -> sends message 1 ilp=prepare
        closed         -> close, socket closed
        send prepare 2 -> BTP session is not authenticated
        closed         -> nothing
    ",
    );
}

#[test]
fn a_client_names_itself_first() {
    for (username, token, sent) in [
        (
            "bob",
            "shh",
            "message 0 auth auth_username=bob auth_token=shh",
        ),
        ("", "shh", "message 0 auth auth_token=shh"),
        ("", "", "message 0 auth auth_token"),
    ] {
        let mut out = Vec::new();
        Session::client(
            Settings::default(),
            OPENED_NS,
            wall(),
            username,
            token,
            &mut out,
        );
        assert_eq!(describe_frame(&out), sent);
    }
    // The bytes of the specification, with its request id 1.
    let mut out = Vec::new();
    Session::client(
        Settings::default(),
        OPENED_NS,
        wall(),
        "bob",
        "shh",
        &mut out,
    );
    out[4] = 1;
    assert_eq!(
        hex::encode(out),
        "06000000012c010304617574680000\
         0d617574685f757365726e616d650103626f62\
         0a617574685f746f6b656e0103736868"
    );
}

#[test]
fn a_client_that_is_rejected_says_no_more() {
    client(
        "
        error 0 F00           -> close, rejected with F00
        message 5 ilp=prepare -> nothing
        closed                -> nothing
    ",
    );
    client("closed    -> close, rejected");
    client("wait 10s  -> close, authentication too late");
    client("garbage 1 -> close, garbage");
}

#[test]
fn a_client_hears_nothing_but_the_answer_until_it_is_authenticated() {
    client(
        "
        response 7             -> nothing
        error 7 F00            -> nothing
        message 5 ilp=prepare  -> sends error 5 F00 'not authenticated'
        transfer 6 10          -> sends error 6 F00 'not authenticated'
        response 0             -> established
        message 5 ilp=prepare  -> prepare 5
        response 1 ilp=fulfill -> fulfill 1
    ",
    );
}

#[test]
fn both_directions_may_use_the_same_id() {
    established(
        "
        send prepare 5         -> sends message 5 ilp=prepare
        message 5 ilp=prepare  -> prepare 5
        response 5 ilp=reject  -> reject 5
        send fulfill 5         -> sends response 5 ilp=fulfill
    ",
    );
}

#[test]
fn frames_of_older_rust_nodes_are_understood() {
    established(
        "
        response 5 ilp=prepare -> prepare 5
        message 1 ilp=fulfill  -> fulfill 1
        message 2 ilp=reject   -> reject 2
    ",
    );
}

#[test]
fn ilp_behind_an_unknown_entry_counts_only_in_its_right_place() {
    established(
        "
        message 5 custom=x ilp=prepare  -> prepare 5
        response 1 custom=x ilp=fulfill -> fulfill 1
        response 5 custom=x ilp=prepare -> bad reply 5
        message 1 custom=x ilp=fulfill  -> sends error 1 F01 'not an ILP Prepare'
        message 6 auth ilp=prepare      -> sends error 6 F00 'already authenticated'
    ",
    );
}

#[test]
fn a_reply_without_a_fulfill_or_reject_never_passes_for_one() {
    established(
        "
        response 1            -> bad reply 1
        response 2 custom=x   -> bad reply 2
        response 3 ilp=x      -> bad reply 3
        response 4 ilp        -> bad reply 4
        error 5 T00           -> peer error 5 T00
        hex 02000000060146    -> bad reply 6
        hex 010000000512010203696c7000020c7003696c7000020c70 -> bad reply 5
    ",
    );
}

#[test]
fn requests_that_cannot_be_served_get_an_error() {
    established("
        message 1 custom=x  -> sends error 1 F00 'unsupported sub-protocol'
        message 2 ilp=x     -> sends error 2 F01 'not an ILP Prepare'
        message 3 ilp       -> sends error 3 F01 'not an ILP Prepare'
        transfer 4 10       -> sends error 4 F00 'transfers are not supported'
        hex 060000000512010203696c7000020c7003696c7000020c70 -> sends error 5 F01 'malformed or unknown packet'
        hex 0300000006020100 -> sends error 6 F01 'malformed or unknown packet'
        hex 0400000007020100 -> sends error 7 F01 'malformed or unknown packet'
        hex 0500000008020100 -> sends error 8 F01 'malformed or unknown packet'
        hex ff00000009020100 -> sends error 9 F01 'malformed or unknown packet'
        hex 060000000a0201   -> sends error 10 F01 'malformed or unknown packet'
        message 11          -> sends response 11
        message 12 ilp=prepare -> prepare 12
    ");
}

#[test]
fn garbage_is_borne_seven_times_in_a_row() {
    established(
        "
        garbage 7             -> nothing
        message 5 ilp=prepare -> prepare 5
        garbage 7             -> nothing
        garbage 1             -> close, garbage
        message 6 ilp=prepare -> nothing
        wait 1000s            -> nothing
    ",
    );
    // Also where each was answered.
    let answered = "hex 0300000006020100 -> sends error 6 F01 'malformed or unknown packet'\n";
    established(&format!(
        "{}hex 0300000006020100 -> close, garbage",
        answered.repeat(7)
    ));
}

#[test]
fn a_silent_peer_is_pinged_twice() {
    established(
        "
        wait 24999ms -> nothing
        wait 1ms     -> ping
        wait 25s     -> ping
        wait 24999ms -> nothing
        wait 1ms     -> close, peer silent
        wait 1000s   -> nothing
    ",
    );
}

#[test]
fn every_sign_of_life_counts() {
    established(
        "
        wait 50s              -> ping, ping
        pong                  -> nothing
        wait 50s              -> ping, ping
        message 5 ilp=prepare -> prepare 5
        wait 24999ms          -> nothing
        garbage 1             -> nothing
        wait 75s              -> ping, ping, close, peer silent
    ",
    );
}

#[test]
fn keep_alive_begins_with_authentication() {
    client(
        "
        wait 9s    -> nothing
        response 0 -> established
        wait 25s   -> ping
    ",
    );
}

#[test]
fn a_newer_session_ends_the_older_one() {
    established(
        "
        supersede             -> close, superseded
        message 5 ilp=prepare -> nothing
        send prepare 1        -> BTP session is not authenticated
        supersede             -> nothing
    ",
    );
}

#[test]
fn an_error_carries_the_time_of_day() {
    let mut session = Session::server(Settings::default(), OPENED_NS, wall(), None);
    let mut out = Vec::new();
    let later_ns = OPENED_NS + 1_999_999;
    session.handle_frame(later_ns, &frame("message 1"), &mut out);
    let Body::Error(error, _) = Frame::decode(&out).unwrap().body else {
        panic!("not an error");
    };
    assert_eq!(error.triggered_at, Some(wall().plus_ms(1)));
    assert_eq!(error.name, b"NotAcceptedError");
}

#[test]
fn the_token_is_never_shown() {
    let mut session = Session::server(Settings::default(), OPENED_NS, wall(), None);
    let bytes = frame("message 9 auth auth_token=shh");
    let event = session.handle_frame(OPENED_NS, &bytes, &mut Vec::new());
    assert_eq!(
        format!("{event:?}"),
        "Authenticate { username: None, token: Token }"
    );
}
