//! Callback mode of ILP over HTTP (RFC 35): a Prepare is answered with 202, and its Fulfill or Reject
//! comes later, in a request of the other side that names the Prepare by its id.
//!
//! | | Who sends the Prepare | Who gets it |
//! |---|---|---|
//! | remembers | [`Sent`], by the id that it chose | [`Received`], by the id that came |
//! | until | the packet's deadline, and [`CALLBACK_MARGIN`] | the same |
//!
//! What is remembered belongs to one account: the id of another account's packet is an unknown one.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    rc::Weak,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{digest, rand};
use bytes::Bytes;
use http::{HeaderName, uri::PathAndQuery};
use rialto_connector::{Paid, RequestId};
use rialto_ledger::AccountId;
use tokio::time::sleep;

use crate::{directory::HttpPeer, worker::Worker};

/// Names a Prepare.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// Where its answer goes.
pub(crate) const CALLBACK_URL: HeaderName = HeaderName::from_static("callback-url");

/// Most packets of one account that are remembered in each direction. One more goes out in synchronous
/// mode, or is refused.
pub const CALLBACKS_MAX: usize = 65_536;
/// Most bytes of answers that are kept for one account, for requests that come again. What is above
/// is delivered all the same, but not once more.
pub const ANSWERS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long after a packet's time is over its answer is still delivered, and known as one that is late
/// or a duplicate.
pub const CALLBACK_MARGIN: Duration = Duration::from_secs(10);
/// Longest life of a packet that is reckoned with. The core makes it shorter.
const LIFE_MS_MAX: i64 = 60_000;
/// Between the first two attempts to deliver an answer; doubled each time.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Between any two.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Shortest time that an attempt is given.
const ATTEMPT_NS_MIN: u64 = 1_000_000_000;

/// A request id, a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id(u128);

impl Id {
    /// A new one, version 4 (RFC 9562, section 5.4).
    pub(crate) fn random() -> Self {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).expect("the operating system gives randomness");
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(u128::from_be_bytes(bytes))
    }

    /// Reads 32 hexadecimal digits with hyphens between.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let is_hyphen = |index| matches!(index, 8 | 13 | 18 | 23);
        if text.len() != 36 {
            return None;
        }
        text.iter()
            .enumerate()
            .try_fold(0_u128, |id, (index, byte)| match byte {
                b'-' if is_hyphen(index) => Some(id),
                _ if is_hyphen(index) => None,
                digit => {
                    let digit = char::from(*digit).to_digit(16)?;
                    Some(id << 4 | u128::from(digit))
                }
            })
            .map(Self)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(
            f,
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }
}

/// Why a request in callback mode is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackRefusal {
    /// The request id is no UUID.
    Id,
    /// The callback URL is not on the server that the account's packets go to.
    Url,
    /// The body is no Prepare.
    Prepare,
    /// The id already names another packet.
    Reused,
    /// There are [`CALLBACKS_MAX`] already.
    Full,
    /// The body of an answer is no Fulfill or Reject.
    Reply,
    /// The id names no packet that was sent to this account.
    Unknown,
    /// The packet was answered before.
    Duplicate,
    /// The packet's time was over.
    Late,
}

impl CallbackRefusal {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Id,
        Self::Url,
        Self::Prepare,
        Self::Reused,
        Self::Full,
        Self::Reply,
        Self::Unknown,
        Self::Duplicate,
        Self::Late,
    ];

    /// Its name in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Url => "url",
            Self::Prepare => "prepare",
            Self::Reused => "reused",
            Self::Full => "full",
            Self::Reply => "reply",
            Self::Unknown => "unknown",
            Self::Duplicate => "duplicate",
            Self::Late => "late",
        }
    }

    /// For the one who asked.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Id => "Request-Id must be a UUID\n",
            Self::Url => "Callback-Url must be on the server that this account's packets go to\n",
            Self::Prepare => "body is not an ILP Prepare\n",
            Self::Reused => "Request-Id names another packet\n",
            Self::Full => "too many packets wait for their callback\n",
            Self::Reply => "body is not an ILP Fulfill or Reject\n",
            Self::Unknown => "Request-Id names no packet that was sent to this account\n",
            Self::Duplicate => "the packet was answered before\n",
            Self::Late => "the packet's time is over\n",
        }
    }
}

/// What is remembered of one account, in the order in which it came.
struct Table<T> {
    entries: HashMap<Id, T>,
    /// Until when, on the monotonic clock.
    order: VecDeque<(u64, Id)>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<T> Table<T> {
    /// Forgets those whose time is over, each of which is given to `forget`. One that came later may
    /// wait for one that came before, which is bounded by the longest life of a packet.
    fn sweep(&mut self, now_ns: u64, mut forget: impl FnMut(T)) {
        while let Some((_, id)) = self.order.pop_front_if(|(until_ns, _)| *until_ns <= now_ns) {
            if let Some(entry) = self.entries.remove(&id) {
                forget(entry);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.order.len() >= CALLBACKS_MAX
    }

    fn insert(&mut self, until_ns: u64, id: Id, entry: T) {
        self.order.push_back((until_ns, id));
        self.entries.insert(id, entry);
    }
}

/// A Prepare that went out.
struct Sent {
    request: RequestId,
    deadline_ns: u64,
    is_answered: bool,
}

/// A Prepare that came in.
struct Received {
    /// SHA-256 of its bytes.
    digest: [u8; 32],
    answer: Option<Bytes>,
}

#[derive(Default)]
struct ReceivedOf {
    table: Table<Received>,
    answers_bytes: usize,
}

/// What a Prepare with a request id is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// To be decided.
    New,
    /// One that is being decided.
    Again,
    /// One that was answered, and with what.
    Answered(Bytes),
}

/// What all workers remember of packets in callback mode, and what they refused.
#[derive(Default)]
pub struct Callbacks {
    sent: Mutex<HashMap<AccountId, Table<Sent>>>,
    received: Mutex<HashMap<AccountId, ReceivedOf>>,
    refused: [AtomicU64; CallbackRefusal::ALL.len()],
}

impl Callbacks {
    /// How often a request was refused for that.
    pub fn refused(&self, why: CallbackRefusal) -> u64 {
        self.refused[why as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, why: CallbackRefusal) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Names a Prepare that is about to be sent. `None`: too many wait for their answer.
    pub(crate) fn send(
        &self,
        account: AccountId,
        request: RequestId,
        deadline_ns: u64,
        now_ns: u64,
    ) -> Option<Id> {
        let mut sent = lock(&self.sent);
        let table = sent.entry(account).or_default();
        table.sweep(now_ns, |_| {});
        if table.is_full() {
            return None;
        }
        let id = Id::random();
        let entry = Sent {
            request,
            deadline_ns,
            is_answered: false,
        };
        table.insert(deadline_ns + margin_ns(), id, entry);
        Some(id)
    }

    /// An answer came, in whatever way: the first is the answer.
    ///
    /// # Errors
    /// [`CallbackRefusal::Unknown`], [`CallbackRefusal::Duplicate`] and [`CallbackRefusal::Late`].
    pub(crate) fn answer(
        &self,
        account: AccountId,
        id: Id,
        now_ns: u64,
    ) -> Result<RequestId, CallbackRefusal> {
        let mut sent = lock(&self.sent);
        let table = sent.get_mut(&account).ok_or(CallbackRefusal::Unknown)?;
        table.sweep(now_ns, |_| {});
        let entry = table.entries.get_mut(&id).ok_or(CallbackRefusal::Unknown)?;
        if entry.is_answered {
            return Err(CallbackRefusal::Duplicate);
        }
        if entry.deadline_ns <= now_ns {
            return Err(CallbackRefusal::Late);
        }
        entry.is_answered = true;
        Ok(entry.request)
    }

    /// A Prepare came, which is remembered until then.
    ///
    /// # Errors
    /// [`CallbackRefusal::Reused`] and [`CallbackRefusal::Full`].
    pub(crate) fn receive(
        &self,
        account: AccountId,
        id: Id,
        packet: &[u8],
        until_ns: u64,
        now_ns: u64,
    ) -> Result<Arrival, CallbackRefusal> {
        let digest = digest::digest(&digest::SHA256, packet);
        let digest = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
        let mut received = lock(&self.received);
        let of = received.entry(account).or_default();
        let answers_bytes = &mut of.answers_bytes;
        of.table.sweep(now_ns, |gone| {
            *answers_bytes -= gone.answer.map_or(0, |answer| answer.len());
        });
        match of.table.entries.get(&id) {
            Some(present) if present.digest != digest => Err(CallbackRefusal::Reused),
            Some(Received {
                answer: Some(answer),
                ..
            }) => Ok(Arrival::Answered(answer.clone())),
            Some(Received { answer: None, .. }) => Ok(Arrival::Again),
            None if of.table.is_full() => Err(CallbackRefusal::Full),
            None => {
                let entry = Received {
                    digest,
                    answer: None,
                };
                of.table.insert(until_ns, id, entry);
                Ok(Arrival::New)
            }
        }
    }

    /// Keeps an answer for the case that the Prepare comes again.
    pub(crate) fn keep(&self, account: AccountId, id: Id, answer: &Bytes) {
        let mut received = lock(&self.received);
        let Some(of) = received.get_mut(&account) else {
            return;
        };
        let bytes = of.answers_bytes + answer.len();
        if let Some(entry) = of.table.entries.get_mut(&id)
            && bytes <= ANSWERS_BYTES_MAX
        {
            of.answers_bytes = bytes;
            entry.answer = Some(answer.clone());
        }
    }
}

/// No half-done change is ever left: every method is done with a table when it panics, if at all.
fn lock<T>(table: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn margin_ns() -> u64 {
    u64::try_from(CALLBACK_MARGIN.as_nanos()).expect("ten seconds")
}

/// Until when a packet that expires in so many milliseconds is remembered, on the monotonic clock.
pub(crate) fn remember_until_ns(life_ms: i64, now_ns: u64) -> u64 {
    let life_ms = life_ms.clamp(0, LIFE_MS_MAX);
    now_ns + u64::try_from(life_ms).unwrap_or_default() * 1_000_000 + margin_ns()
}

/// The path of a callback URL, if it is on the peer's own server: nobody else is called for a stranger,
/// nor given our token.
pub(crate) fn path_on(peer: &HttpPeer, callback: &[u8]) -> Option<PathAndQuery> {
    let text = std::str::from_utf8(callback).ok()?;
    let other = HttpPeer::new(text, "").ok()?;
    let is_same = other.tls() == peer.tls()
        && other.host.eq_ignore_ascii_case(&peer.host)
        && other.port == peer.port;
    let path = other.url.path_and_query().cloned();
    path.filter(|_| is_same)
}

/// An answer that goes to the peer's callback URL.
pub(crate) struct Delivery {
    pub(crate) account: AccountId,
    pub(crate) path: PathAndQuery,
    pub(crate) id: Id,
    pub(crate) packet: Bytes,
    /// What is lost if it does not arrive.
    pub(crate) paid: Option<Paid>,
    pub(crate) until_ns: u64,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// With success.
    Yes,
    /// With a status that no repetition will change.
    Refused(u16),
    /// It may have arrived.
    Unknown,
    /// It surely did not.
    No,
}

impl Delivery {
    /// Delivers the answer, again and again until its time is over. The same bytes each time: what the
    /// books say does not change any more.
    pub(crate) async fn run(self, worker: Weak<Worker>) {
        let mut pause = RETRY_PAUSE;
        let mut may_have_arrived = false;
        loop {
            let Some(worker) = worker.upgrade() else {
                return; // the node is gone
            };
            let clock = worker.clock();
            let now_ns = clock.now_ns();
            if now_ns >= self.until_ns {
                return self.give_up(&worker, "its time is over");
            }
            let attempt_ns = ((self.until_ns - now_ns) / 3).max(ATTEMPT_NS_MIN);
            let deadline_ns = (now_ns + attempt_ns).min(self.until_ns);
            // As the account is now: its URL may have changed, and then nobody is there.
            let Some(client) = worker.http_client(self.account) else {
                return self.give_up(&worker, "the account has no URL any more");
            };
            match client.deliver(&self, deadline_ns).await {
                Delivered::Yes => return,
                // The peer knows the answer that it did not acknowledge.
                Delivered::Refused(400) if may_have_arrived => return,
                Delivered::Refused(status) => {
                    return self.give_up(&worker, &format!("the peer answers {status}"));
                }
                Delivered::Unknown => may_have_arrived = true,
                Delivered::No => {}
            }
            drop(worker);
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    fn give_up(&self, worker: &Worker, why: &str) {
        worker.undelivered(self.account, self.paid, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: AccountId = AccountId(1);
    const BOB: AccountId = AccountId(2);
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn ids_are_uuids() {
        let text = "0af7651c-16cd-43dd-8448-eb211c80319c";
        assert_eq!(Id::parse(text.as_bytes()).unwrap().to_string(), text);
        let upper = text.to_uppercase();
        assert_eq!(Id::parse(upper.as_bytes()), Id::parse(text.as_bytes()));
        let random = Id::random().to_string();
        assert_eq!(&random[14..15], "4", "{random}");
        assert!("89ab".contains(&random[19..20]), "{random}");
        for bad in [
            "",
            "0af7651c16cd43dd8448eb211c80319c",
            "0af7651c-16cd-43dd-8448-eb211c80319",
            "0af7651c-16cd-43dd-8448-eb211c80319cc",
            "0af7651c-16cd-43dd-8448-eb211c80319g",
            "0af7651c016cd-43dd-8448-eb211c80319c",
            "+af7651c-16cd-43dd-8448-eb211c80319c",
        ] {
            assert_eq!(Id::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn an_answer_counts_once_in_time_and_for_its_own_account() {
        use CallbackRefusal::{Duplicate, Late, Unknown};
        let callbacks = Callbacks::default();
        let id = callbacks.send(ALICE, RequestId(7), SECOND, 0).unwrap();
        let answer = |account, id, now_ns| callbacks.answer(account, id, now_ns);
        assert_eq!(answer(BOB, id, 1), Err(Unknown));
        assert_eq!(answer(ALICE, Id::random(), 1), Err(Unknown));
        assert_eq!(answer(ALICE, id, 1), Ok(RequestId(7)));
        assert_eq!(answer(ALICE, id, 2), Err(Duplicate));
        let slow = callbacks.send(ALICE, RequestId(8), SECOND, 0).unwrap();
        assert_eq!(answer(ALICE, slow, SECOND), Err(Late));
        assert_eq!(answer(ALICE, slow, SECOND + margin_ns()), Err(Unknown));
    }

    #[test]
    fn a_prepare_that_comes_again_is_the_same_one() {
        let callbacks = Callbacks::default();
        let id = Id::random();
        let receive = |account, packet, now_ns| {
            callbacks.receive(account, id, packet, remember_until_ns(1_000, 0), now_ns)
        };
        assert_eq!(receive(ALICE, b"a", 0), Ok(Arrival::New));
        assert_eq!(receive(ALICE, b"a", 1), Ok(Arrival::Again));
        assert_eq!(receive(ALICE, b"b", 1), Err(CallbackRefusal::Reused));
        assert_eq!(receive(BOB, b"b", 1), Ok(Arrival::New));
        let answer = Bytes::from_static(b"answer");
        callbacks.keep(ALICE, id, &answer);
        assert_eq!(receive(ALICE, b"a", 2), Ok(Arrival::Answered(answer)));
        assert_eq!(receive(BOB, b"b", 2), Ok(Arrival::Again));
        // Forgotten, and the room with it.
        let later = remember_until_ns(1_000, 0);
        assert_eq!(receive(ALICE, b"a", later), Ok(Arrival::New));
        assert_eq!(lock(&callbacks.received)[&ALICE].answers_bytes, 0);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let callbacks = Callbacks::default();
        for _ in 0..CALLBACKS_MAX {
            assert!(callbacks.send(ALICE, RequestId(1), SECOND, 0).is_some());
            let came = callbacks.receive(ALICE, Id::random(), b"x", SECOND, 0);
            assert_eq!(came, Ok(Arrival::New));
        }
        assert!(callbacks.send(ALICE, RequestId(1), SECOND, 0).is_none());
        let came = callbacks.receive(ALICE, Id::random(), b"x", SECOND, 0);
        assert_eq!(came, Err(CallbackRefusal::Full));
        assert!(callbacks.send(BOB, RequestId(1), SECOND, 0).is_some());
        let later = SECOND + margin_ns();
        assert!(callbacks.send(ALICE, RequestId(1), SECOND, later).is_some());
        let large = Bytes::from(vec![0; ANSWERS_BYTES_MAX]);
        let ids = [Id::random(), Id::random()];
        for id in ids {
            let came = callbacks.receive(BOB, id, b"x", SECOND, 0);
            assert_eq!(came, Ok(Arrival::New));
            callbacks.keep(BOB, id, &large);
        }
        let again = ids.map(|id| callbacks.receive(BOB, id, b"x", SECOND, 0));
        assert_eq!(again, [Ok(Arrival::Answered(large)), Ok(Arrival::Again)]);
    }

    #[test]
    fn answers_go_to_the_peers_own_server_only() {
        let peer = |url| HttpPeer::new(url, "t").unwrap();
        let path = |url, callback: &str| {
            let path = path_on(&peer(url), callback.as_bytes());
            path.map(|path| path.to_string())
        };
        let own = "https://h.example/ilp";
        for (url, callback, found) in [
            (
                own,
                "https://h.example/accounts/a/cb?x=1",
                Some("/accounts/a/cb?x=1"),
            ),
            (own, "https://h.example:443/cb", Some("/cb")),
            (own, "https://H.EXAMPLE/cb", Some("/cb")),
            (own, "http://h.example/cb", None),
            (own, "http://h.example:443/cb", None),
            (own, "https://h.example:444/cb", None),
            (own, "https://other.example/cb", None),
            (own, "https://h.example.evil/cb", None),
            (own, "https://u@h.example/cb", None),
            (own, "https://169.254.169.254/", None),
            (own, "/cb", None),
            (own, "", None),
            ("h2c://h:1/ilp", "http://h:1/cb", Some("/cb")),
        ] {
            assert_eq!(path(url, callback).as_deref(), found, "{callback}");
        }
    }
}
