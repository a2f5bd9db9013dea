//! The receiving side: what a local account answers to the Prepares that reach it.
//!
//! No state is needed to hand out addresses: the last segment of each is a token from which the
//! connection's secret is derived, and which carries the receipt details sealed. A connection is
//! remembered from its first Prepare that decrypts, in a table of bounded size; forgetting one loses
//! the running totals of its receipts and nothing else.

use std::{collections::BTreeMap, fmt, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rand_core::Rng;
use rialto_packet::{
    Addr, Address, AddressError, ErrorCode, FulfillBuilder, PacketType, Prepare, RejectBuilder,
    money::Asset,
};
use rustc_hash::FxHashMap;
use zeroize::Zeroize;

use crate::{
    crypto::{
        IV_BYTES, Keys, SharedSecret, aead_key, condition, hmac_sha256, open_tag_first,
        seal_tag_first,
    },
    packet::{CloseCode, Frame, Packet, PacketBuilder},
    receipt::{RECEIPT_BYTES, Receipt, ReceiptDetails, ReceiptSecret},
};

/// How many connections a receiver remembers unless told otherwise.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Largest stream number accepted; the client's are odd, so it can open ten.
pub const STREAM_ID_MAX: u64 = 20;
/// Bytes of data accepted, and thrown away, on one stream. Clients of the reference implementation
/// assume as much before they hear of a limit.
pub const STREAM_DATA_BYTES_MAX: u64 = 16_384;
/// Bytes of data accepted, and thrown away, on one connection.
pub const CONNECTION_DATA_BYTES_MAX: u64 = 65_534;

const SALT_BYTES: usize = 16;
const TOKEN_PLAIN: u8 = 0;
const TOKEN_WITH_RECEIPT: u8 = 1;

/// Receives for one account. See the [crate's example](crate).
#[derive(Debug)]
pub struct Receiver {
    secrets: ServerSecrets,
    asset: Asset,
    connections: Connections,
}

/// What a client needs to pay: the content of an SPSP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The account's address and a token.
    pub destination_account: Address,
    /// Goes with this address only.
    pub shared_secret: SharedSecret,
}

/// The reply to one Prepare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// A whole Fulfill or Reject.
    pub packet: Vec<u8>,
    /// What it brings the account: `Some` exactly when the packet is a Fulfill.
    pub received: Option<Received>,
}

/// Money that a Fulfill accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Units of the account's asset.
    pub amount: u64,
    /// Whose it is.
    pub connection: ConnectionId,
}

/// Tells connections apart; neither secret nor guessable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub [u8; SALT_BYTES]);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Receiver {
    /// `server_secret` must stay the same for as long as addresses handed out are to work, and may be
    /// shared by all receivers of a node. Remembers at most `connections_max` connections, at least one.
    pub fn new(server_secret: &[u8; 32], asset: Asset, connections_max: usize) -> Self {
        Self {
            secrets: ServerSecrets::new(server_secret),
            asset,
            connections: Connections::new(connections_max.max(1)),
        }
    }

    /// A fresh address under `account` and the secret that goes with it. Fails only when the address
    /// gets too long.
    pub fn credentials(
        &self,
        rng: &mut impl Rng,
        account: &Address,
        receipt: Option<&ReceiptDetails>,
    ) -> Result<Credentials, AddressError> {
        let mut salt = [0; SALT_BYTES];
        rng.fill_bytes(&mut salt);
        let token = self.secrets.token(salt, account.as_ref(), receipt);
        Ok(Credentials {
            shared_secret: self.secrets.shared_secret(&token),
            destination_account: account.child(&token)?,
        })
    }

    /// Answers a Prepare whose destination is under `account` (RFC 29, section 4; the order of the
    /// checks matters: nothing is credited before the condition is known to be right).
    ///
    /// Expiry, limits and balances are the caller's, *before* calling. The answer counts as given:
    /// when it is a Fulfill, the totals of receipts have already moved on.
    pub fn handle_prepare<B: AsRef<[u8]>>(
        &mut self,
        rng: &mut impl Rng,
        account: Addr<'_>,
        prepare: &Prepare<B>,
    ) -> Answer {
        let token = prepare
            .destination()
            .strip_prefix(account.as_str())
            .and_then(|rest| rest.split('.').next())
            .unwrap_or_default();
        let data = prepare.data();
        let known = self.connections.get(account, token);
        let opened = match known {
            Some(_) => None,
            None => self.secrets.open(token, account),
        };
        let Some(keys) = known.or(opened.as_ref()).map(|it| &it.keys) else {
            return refuse(ErrorCode::F02_UNREACHABLE, account);
        };
        let plaintext = keys.open(data);
        let packet = plaintext
            .as_deref()
            .and_then(|bytes| Packet::parse(bytes).ok());
        let Some(packet) = packet.filter(|packet| packet.packet_type == PacketType::Prepare) else {
            return refuse(ErrorCode::F06_UNEXPECTED_PAYMENT, account);
        };
        let fulfillment = keys.fulfillment(data);

        let connection = self.connections.touch(token, opened);
        let amount = prepare.amount();
        let mut seen = connection.handle_frames(&packet);
        let accepted = !seen.breach
            && amount >= packet.prepare_amount
            && condition(&fulfillment) == prepare.condition()
            && connection.accept(amount, &packet, &mut seen);
        connection.close_streams(&seen);

        let receipts = if accepted {
            connection.receipts(&seen)
        } else {
            Vec::new()
        };
        let frames = connection.reply_frames(&seen, &self.asset, &receipts);
        let plaintext = PacketBuilder {
            packet_type: if accepted {
                PacketType::Fulfill
            } else {
                PacketType::Reject
            },
            sequence: packet.sequence,
            prepare_amount: amount,
            frames: &frames,
        }
        .encode();
        let sealed = connection.keys.seal(rng, &plaintext);
        connection.asset_details_sent = true;
        let packet = if accepted {
            FulfillBuilder {
                fulfillment,
                data: &sealed,
            }
            .encode()
        } else {
            RejectBuilder {
                code: ErrorCode::F99_APPLICATION_ERROR,
                triggered_by: Some(account),
                message: "",
                data: &sealed,
            }
            .encode()
        };
        Answer {
            packet: packet.expect("a reply has a few frames for each of ten streams"),
            received: accepted.then_some(Received {
                amount,
                connection: connection.id,
            }),
        }
    }
}

/// A Reject that says no more than its code.
fn refuse(code: ErrorCode, account: Addr<'_>) -> Answer {
    let packet = RejectBuilder {
        code,
        triggered_by: Some(account),
        message: "",
        data: &[],
    }
    .encode()
    .expect("no data is not too much");
    Answer {
        packet,
        received: None,
    }
}

/// What the frames of one Prepare said, as far as the reply depends on it. Streams are indices.
#[derive(Default)]
struct Seen {
    /// The packet broke a rule; its money is refused.
    breach: bool,
    new_address: bool,
    touched: [bool; STREAMS],
    closing: [bool; STREAMS],
    paid: [bool; STREAMS],
    /// Money or data for a stream that was closed before.
    after_close: [bool; STREAMS],
}

/// Streams that a client can open.
const STREAMS: usize = 10;

/// Of a client's stream by index; the client's streams are odd.
fn stream_id(index: usize) -> u64 {
    2 * index as u64 + 1
}

/// What is remembered of a connection.
#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    account: Address,
    keys: Keys,
    receipt: Option<ReceiptDetails>,
    asset_details_sent: bool,
    closed: Option<CloseCode>,
    /// In all, on streams and outside of them. Each stream's total is at most this.
    received: u64,
    streams: [Stream; STREAMS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    closed: bool,
    received: u64,
    /// Where the data seen so far ends.
    data_end: u64,
}

impl Connection {
    /// Everything but money, which is done even when the packet will be rejected.
    fn handle_frames(&mut self, packet: &Packet<'_>) -> Seen {
        let mut seen = Seen::default();
        for frame in packet.frames() {
            let Ok(frame) = frame else {
                self.breach(&mut seen, CloseCode::FRAME_FORMAT_ERROR);
                break;
            };
            match frame {
                Frame::ConnectionClose { .. } => self.closed = Some(CloseCode::NO_ERROR),
                Frame::ConnectionNewAddress { .. } => seen.new_address = true,
                Frame::StreamMoney { stream_id, .. }
                | Frame::StreamMaxMoney { stream_id, .. }
                | Frame::StreamMaxData { stream_id, .. }
                | Frame::StreamMoneyBlocked { stream_id, .. }
                | Frame::StreamDataBlocked { stream_id, .. } => {
                    let Some(index) = self.stream(stream_id, &mut seen) else {
                        break;
                    };
                    if matches!(frame, Frame::StreamMoney { .. }) {
                        seen.after_close[index] |= self.streams[index].closed;
                    }
                }
                Frame::StreamData {
                    stream_id,
                    offset,
                    data,
                } => {
                    let Some(index) = self.stream(stream_id, &mut seen) else {
                        break;
                    };
                    seen.after_close[index] |= self.streams[index].closed;
                    // Nobody reads the data, so where it ends is all there is to know about it.
                    let stream = &mut self.streams[index];
                    let end = offset.saturating_add(data.len() as u64);
                    stream.data_end = stream.data_end.max(end);
                    let total = self
                        .streams
                        .iter()
                        .fold(0u64, |sum, stream| sum.saturating_add(stream.data_end));
                    if end > STREAM_DATA_BYTES_MAX || total > CONNECTION_DATA_BYTES_MAX {
                        self.breach(&mut seen, CloseCode::FLOW_CONTROL_ERROR);
                        break;
                    }
                }
                Frame::StreamClose { stream_id, .. } => {
                    if let Some(index) = stream_index(stream_id) {
                        seen.closing[index] = true;
                    }
                }
                // This side sends no money and no data, so the client's limits do not concern it.
                Frame::ConnectionMaxData { .. }
                | Frame::ConnectionDataBlocked { .. }
                | Frame::ConnectionMaxStreamId { .. }
                | Frame::ConnectionStreamIdBlocked { .. }
                | Frame::ConnectionAssetDetails { .. }
                | Frame::StreamReceipt { .. } => {}
            }
        }
        seen.breach |= seen.after_close.contains(&true);
        seen
    }

    /// Marks a stream as touched; `None` when the client may not have it (RFC 29, section 5.3.6).
    fn stream(&mut self, id: u64, seen: &mut Seen) -> Option<usize> {
        let index = stream_index(id);
        match index {
            Some(index) => seen.touched[index] = true,
            None if id.is_multiple_of(2) => self.breach(seen, CloseCode::PROTOCOL_VIOLATION),
            None => self.breach(seen, CloseCode::STREAM_ID_ERROR),
        }
        index
    }

    fn breach(&mut self, seen: &mut Seen, code: CloseCode) {
        self.closed = Some(code);
        seen.breach = true;
    }

    /// Credits the streams, or leaves everything as it is and says no. Nothing is refused without
    /// money: a client repeats a refused close for ever.
    fn accept(&mut self, amount: u64, packet: &Packet<'_>, seen: &mut Seen) -> bool {
        if amount == 0 {
            return true;
        }
        let mut shares = [0u64; STREAMS];
        let mut shares_total = 0u64;
        let mut for_streams = false;
        for frame in packet.frames().flatten() {
            if let Frame::StreamMoney {
                stream_id,
                shares: more,
            } = frame
            {
                let Some(total) = shares_total.checked_add(more) else {
                    return false;
                };
                shares_total = total;
                shares[stream_index(stream_id).expect("breaches were refused before")] += more;
                for_streams = true;
            }
        }
        let Some(received) = self.received.checked_add(amount) else {
            return false;
        };
        if self.closed.is_some() || (for_streams && shares_total == 0) {
            return false;
        }
        self.received = received;
        let mut left = amount;
        for (index, shares) in shares.into_iter().enumerate().filter(|(_, it)| *it > 0) {
            let part = u128::from(amount) * u128::from(shares) / u128::from(shares_total);
            let part = u64::try_from(part).expect("a share is at most the whole");
            self.streams[index].received += part;
            left -= part;
            seen.paid[index] = true;
        }
        // What rounding left over goes to the lowest stream; money for no stream stays with none.
        if let Some(lowest) = seen.paid.iter().position(|paid| *paid) {
            self.streams[lowest].received += left;
        }
        true
    }

    /// A packet may pay a stream and close it, so closes come last.
    fn close_streams(&mut self, seen: &Seen) {
        for (stream, closing) in self.streams.iter_mut().zip(seen.closing) {
            stream.closed |= closing;
        }
    }

    /// For each stream paid, with its new total (RFC 39).
    fn receipts(&self, seen: &Seen) -> Vec<(u64, [u8; RECEIPT_BYTES])> {
        let Some(details) = &self.receipt else {
            return Vec::new();
        };
        let sign = |index: usize| {
            let receipt = Receipt {
                nonce: details.nonce,
                stream_id: u8::try_from(stream_id(index)).expect("at most STREAM_ID_MAX"),
                total_received: self.streams[index].received,
            };
            (stream_id(index), receipt.encode(&details.secret))
        };
        (0..STREAMS)
            .filter(|index| seen.paid[*index])
            .map(sign)
            .collect()
    }

    fn reply_frames<'a>(
        &self,
        seen: &Seen,
        asset: &'a Asset,
        receipts: &'a [(u64, [u8; RECEIPT_BYTES])],
    ) -> Vec<Frame<'a>> {
        let mut frames = vec![Frame::ConnectionMaxData {
            max_offset: CONNECTION_DATA_BYTES_MAX,
        }];
        if seen.new_address || !self.asset_details_sent {
            frames.push(Frame::ConnectionMaxStreamId {
                max_stream_id: STREAM_ID_MAX,
            });
            frames.push(Frame::ConnectionAssetDetails {
                source_asset_code: asset.code(),
                source_asset_scale: asset.scale(),
            });
        }
        for (index, stream) in self.streams.iter().enumerate() {
            let stream_id = stream_id(index);
            if seen.after_close[index] {
                frames.push(Frame::StreamClose {
                    stream_id,
                    error_code: CloseCode::STREAM_STATE_ERROR,
                    error_message: "",
                });
            } else if seen.touched[index] {
                frames.push(Frame::StreamMaxMoney {
                    stream_id,
                    receive_max: u64::MAX,
                    total_received: stream.received,
                });
                frames.push(Frame::StreamMaxData {
                    stream_id,
                    max_offset: STREAM_DATA_BYTES_MAX,
                });
            }
        }
        frames.extend(
            receipts
                .iter()
                .map(|(stream_id, receipt)| Frame::StreamReceipt {
                    stream_id: *stream_id,
                    receipt,
                }),
        );
        frames.extend(self.closed.map(|error_code| Frame::ConnectionClose {
            error_code,
            error_message: "",
        }));
        frames
    }
}

/// Of a client's stream within the limit.
fn stream_index(id: u64) -> Option<usize> {
    if id % 2 == 1 && id <= STREAM_ID_MAX {
        usize::try_from(id / 2).ok()
    } else {
        None
    }
}

/// The connections by token, and by when they were last used.
#[derive(Debug)]
struct Connections {
    count_max: usize,
    by_token: FxHashMap<Arc<str>, (u64, Connection)>,
    by_use: BTreeMap<u64, Arc<str>>,
    uses: u64,
}

impl Connections {
    fn new(count_max: usize) -> Self {
        Self {
            count_max,
            by_token: FxHashMap::default(),
            by_use: BTreeMap::new(),
            uses: 0,
        }
    }

    fn get(&self, account: Addr<'_>, token: &str) -> Option<&Connection> {
        let (_, connection) = self.by_token.get(token)?;
        (connection.account.as_ref() == account).then_some(connection)
    }

    /// The connection of `token`, which is now the one used last: `opened` when it is new, for which
    /// the one that has been idle longest makes room.
    fn touch(&mut self, token: &str, opened: Option<Connection>) -> &mut Connection {
        self.uses += 1;
        let token: Arc<str> = match opened {
            None => {
                let (used, _) = &self.by_token[token];
                self.by_use.remove(used).expect("one entry for each token")
            }
            Some(connection) => {
                let token: Arc<str> = token.into();
                if self.by_token.len() >= self.count_max
                    && let Some((_, oldest)) = self.by_use.pop_first()
                {
                    self.by_token.remove(&oldest);
                }
                self.by_token
                    .insert(Arc::clone(&token), (self.uses, connection));
                token
            }
        };
        self.by_use.insert(self.uses, Arc::clone(&token));
        let (used, connection) = self.by_token.get_mut(&token).expect("looked up before");
        *used = self.uses;
        connection
    }
}

/// Keys for tokens and shared secrets, derived from the server's one secret.
///
/// A token is `salt || tag || ciphertext`, in base64url. Each salt gives its own key, so that any
/// number of tokens can be made at random; the account is authenticated along with it.
struct ServerSecrets {
    token: [u8; 32],
    shared_secret: [u8; 32],
}

impl fmt::Debug for ServerSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerSecrets(..)")
    }
}

impl Drop for ServerSecrets {
    fn drop(&mut self) {
        self.token.zeroize();
        self.shared_secret.zeroize();
    }
}

/// Under a key that is used once, the IV need not differ.
const TOKEN_IV: [u8; IV_BYTES] = [0; IV_BYTES];

impl ServerSecrets {
    fn new(server_secret: &[u8; 32]) -> Self {
        Self {
            token: hmac_sha256(server_secret, b"rialto_stream_token"),
            shared_secret: hmac_sha256(server_secret, b"rialto_stream_shared_secret"),
        }
    }

    fn token(
        &self,
        salt: [u8; SALT_BYTES],
        account: Addr<'_>,
        receipt: Option<&ReceiptDetails>,
    ) -> String {
        let mut content = vec![TOKEN_PLAIN];
        if let Some(receipt) = receipt {
            content[0] = TOKEN_WITH_RECEIPT;
            content.extend_from_slice(&receipt.nonce);
            content.extend_from_slice(receipt.secret.as_bytes());
        }
        let key = aead_key(&hmac_sha256(&self.token, &salt));
        let sealed = seal_tag_first(&key, TOKEN_IV, account.as_str().as_bytes(), &content);
        content.zeroize();
        let mut token = salt.to_vec();
        token.extend_from_slice(&sealed[IV_BYTES..]);
        BASE64_URL_SAFE_NO_PAD.encode(token)
    }

    fn shared_secret(&self, token: &str) -> SharedSecret {
        SharedSecret::from_bytes(hmac_sha256(&self.shared_secret, token.as_bytes()))
    }

    /// The connection that a token stands for; `None` when this server did not make it for `account`.
    fn open(&self, token: &str, account: Addr<'_>) -> Option<Connection> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let (salt, sealed) = bytes.split_first_chunk::<SALT_BYTES>()?;
        let key = aead_key(&hmac_sha256(&self.token, salt));
        let sealed = [TOKEN_IV.as_slice(), sealed].concat();
        let mut content = open_tag_first(&key, account.as_str().as_bytes(), &sealed)?;
        let receipt = match content.split_first()? {
            (&TOKEN_PLAIN, []) => None,
            (&TOKEN_WITH_RECEIPT, details) => {
                let (nonce, secret) = details.split_first_chunk::<16>()?;
                Some(ReceiptDetails {
                    nonce: *nonce,
                    secret: ReceiptSecret::from_bytes(secret.try_into().ok()?),
                })
            }
            _ => return None,
        };
        content.zeroize();
        Some(Connection {
            id: ConnectionId(*salt),
            account: account.to_owned(),
            keys: Keys::new(self.shared_secret(token).as_bytes()),
            receipt,
            asset_details_sent: false,
            closed: None,
            received: 0,
            streams: [Stream::default(); STREAMS],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;
    use rialto_packet::{PrepareBuilder, Reply, Timestamp};

    use super::*;

    const ACCOUNT: &str = "example.bob";

    /// A client of one connection that can say anything.
    struct Client {
        rng: ChaCha20Rng,
        receiver: Receiver,
        destination: Address,
        keys: Keys,
        sequence: u64,
    }

    /// What came back, frames as text.
    #[derive(Debug, PartialEq, Eq)]
    struct Said {
        /// `None` for a Fulfill.
        code: Option<ErrorCode>,
        amount: u64,
        received: Option<u64>,
        frames: String,
    }

    fn money(stream_id: u64, shares: u64) -> Frame<'static> {
        Frame::StreamMoney { stream_id, shares }
    }

    fn data(stream_id: u64, offset: u64, data: &[u8]) -> Frame<'_> {
        Frame::StreamData {
            stream_id,
            offset,
            data,
        }
    }

    impl Client {
        fn new() -> Self {
            Self::with(None)
        }

        fn with(receipt: Option<&ReceiptDetails>) -> Self {
            let mut rng = ChaCha20Rng::seed_from_u64(5);
            let receiver = Receiver::new(&[1; 32], Asset::new("EUR", 6).unwrap(), 8);
            let account = ACCOUNT.parse().unwrap();
            let credentials = receiver.credentials(&mut rng, &account, receipt).unwrap();
            Self {
                rng,
                receiver,
                destination: credentials.destination_account,
                keys: Keys::new(credentials.shared_secret.as_bytes()),
                sequence: 0,
            }
        }

        fn plaintext(&mut self, minimum: u64, frames: &[Frame<'_>]) -> Vec<u8> {
            self.sequence += 1;
            PacketBuilder {
                packet_type: PacketType::Prepare,
                sequence: self.sequence,
                prepare_amount: minimum,
                frames,
            }
            .encode()
        }

        fn answer(&mut self, amount: u64, data: &[u8], condition: [u8; 32]) -> Answer {
            let prepare = PrepareBuilder {
                amount,
                expires_at: Timestamp::from_unix_ms(0),
                condition,
                destination: self.destination.as_ref(),
                data,
            }
            .encode()
            .unwrap();
            let account = Addr::new(ACCOUNT).unwrap();
            let prepare = Prepare::parse(prepare).unwrap();
            self.receiver
                .handle_prepare(&mut self.rng, account, &prepare)
        }

        fn pay(&mut self, amount: u64, minimum: u64, frames: &[Frame<'_>]) -> Said {
            let plaintext = self.plaintext(minimum, frames);
            self.pay_plaintext(amount, &plaintext)
        }

        fn pay_plaintext(&mut self, amount: u64, plaintext: &[u8]) -> Said {
            let data = self.keys.seal(&mut self.rng, plaintext);
            let condition = condition(&self.keys.fulfillment(&data));
            let answer = self.answer(amount, &data, condition);
            self.said(&answer)
        }

        fn probe(&mut self, amount: u64, frames: &[Frame<'_>]) -> Said {
            let plaintext = self.plaintext(0, frames);
            let data = self.keys.seal(&mut self.rng, &plaintext);
            let answer = self.answer(amount, &data, [0; 32]);
            self.said(&answer)
        }

        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "any other frame fails the test"
        )]
        fn said(&self, answer: &Answer) -> Said {
            let reply = Reply::parse(&answer.packet).unwrap();
            let (code, packet_type, data) = match &reply {
                Reply::Fulfill(fulfill) => (None, PacketType::Fulfill, fulfill.data()),
                Reply::Reject(reject) => (Some(reject.code()), PacketType::Reject, reject.data()),
            };
            let received = answer.received.map(|received| received.amount);
            assert_eq!(code.is_none(), received.is_some());
            if data.is_empty() {
                return Said {
                    code,
                    amount: 0,
                    received,
                    frames: String::new(),
                };
            }
            let plaintext = self.keys.open(data).unwrap();
            let packet = Packet::parse(&plaintext).unwrap();
            assert_eq!(
                (packet.packet_type, packet.sequence),
                (packet_type, self.sequence)
            );
            let frames: Vec<_> = packet
                .frames()
                .map(|frame| match frame.unwrap() {
                    Frame::ConnectionMaxData { max_offset: 65_534 } => String::new(),
                    Frame::ConnectionMaxStreamId { max_stream_id: 20 } => String::new(),
                    Frame::StreamMaxData {
                        max_offset: 16_384, ..
                    } => String::new(),
                    Frame::ConnectionAssetDetails {
                        source_asset_code,
                        source_asset_scale,
                    } => format!("asset {source_asset_code}/{source_asset_scale}"),
                    Frame::StreamMaxMoney {
                        stream_id,
                        receive_max: u64::MAX,
                        total_received,
                    } => format!("stream {stream_id} has {total_received}"),
                    Frame::ConnectionClose { error_code, .. } => format!("close {}", error_code.0),
                    Frame::StreamClose {
                        stream_id,
                        error_code,
                        ..
                    } => format!("stream {stream_id} close {}", error_code.0),
                    Frame::StreamReceipt { stream_id, receipt } => {
                        let total = Receipt::parse(receipt).unwrap().total_received;
                        format!("receipt {stream_id} {total}")
                    }
                    other => panic!("{other:?}"),
                })
                .filter(|frame| !frame.is_empty())
                .collect();
            Said {
                code,
                amount: packet.prepare_amount,
                received,
                frames: frames.join(", "),
            }
        }
    }

    fn fulfilled(amount: u64, frames: &str) -> Said {
        Said {
            code: None,
            amount,
            received: Some(amount),
            frames: frames.to_owned(),
        }
    }

    fn rejected(amount: u64, frames: &str) -> Said {
        Said {
            code: Some(ErrorCode::F99_APPLICATION_ERROR),
            amount,
            received: None,
            frames: frames.to_owned(),
        }
    }

    fn bare(code: ErrorCode) -> Said {
        Said {
            code: Some(code),
            amount: 0,
            received: None,
            frames: String::new(),
        }
    }

    #[test]
    fn money_is_taken_and_counted() {
        let mut client = Client::new();
        assert_eq!(
            client.pay(50, 50, &[money(1, 1)]),
            fulfilled(50, "asset EUR/6, stream 1 has 50")
        );
        assert_eq!(
            client.pay(7, 1, &[money(1, 7)]),
            fulfilled(7, "stream 1 has 57")
        );
        assert_eq!(client.pay(0, 0, &[]), fulfilled(0, ""));
    }

    #[test]
    fn a_probe_tells_what_would_arrive_and_takes_nothing() {
        let mut client = Client::new();
        assert_eq!(client.probe(50, &[]), rejected(50, "asset EUR/6"));
        let address = Frame::ConnectionNewAddress { source_account: "" };
        assert_eq!(
            client.probe(50, &[money(1, 1)]),
            rejected(50, "stream 1 has 0")
        );
        assert_eq!(client.probe(50, &[address]), rejected(50, "asset EUR/6"));
    }

    #[test]
    fn less_than_the_minimum_is_refused() {
        let mut client = Client::new();
        client.probe(1, &[]);
        assert_eq!(
            client.pay(49, 50, &[money(1, 1)]),
            rejected(49, "stream 1 has 0")
        );
        assert_eq!(
            client.pay(50, 50, &[money(1, 1)]),
            fulfilled(50, "stream 1 has 50")
        );
    }

    #[test]
    fn data_that_does_not_decrypt_or_lies_about_itself_is_unexpected() {
        let mut client = Client::new();
        let unexpected = bare(ErrorCode::F06_UNEXPECTED_PAYMENT);
        for data in [&b""[..], &[0; 27], &[0; 28], &[0; 400]] {
            let answer = client.answer(5, data, [0; 32]);
            assert_eq!(client.said(&answer), unexpected);
        }
        let mut plaintext = client.plaintext(0, &[]);
        plaintext[1] = 13;
        assert_eq!(client.pay_plaintext(5, &plaintext), unexpected);
        plaintext[..2].copy_from_slice(&[2, 12]);
        assert_eq!(client.pay_plaintext(5, &plaintext), unexpected);
        assert!(
            client.receiver.connections.by_token.is_empty(),
            "nothing decrypted, nothing kept"
        );
    }

    #[test]
    fn tokens_work_for_their_account_and_server_alone() {
        let mut client = Client::new();
        let token = client
            .destination
            .as_str()
            .strip_prefix("example.bob.")
            .unwrap()
            .to_owned();
        let mut changed = token.clone();
        changed.replace_range(3..4, if &token[3..4] == "x" { "y" } else { "x" });
        let unknown = bare(ErrorCode::F02_UNREACHABLE);
        for destination in [
            format!("{ACCOUNT}.{changed}"),
            format!("{ACCOUNT}.x"),
            ACCOUNT.to_owned(),
            format!("{ACCOUNT}.{}", &token[..30]),
        ] {
            client.destination = destination.parse().unwrap();
            assert_eq!(client.pay(5, 0, &[]), unknown);
        }
        client.destination = format!("{ACCOUNT}.{token}.more.after").parse().unwrap();
        assert_eq!(client.pay(5, 0, &[]), fulfilled(5, "asset EUR/6"));

        // The same token under another account, before and after the connection is known.
        let alice = Addr::new("example.alice").unwrap();
        let elsewhere = format!("{alice}.{token}");
        for receiver in [
            &mut client.receiver,
            &mut Receiver::new(&[1; 32], Asset::new("EUR", 6).unwrap(), 8),
        ] {
            let prepare = PrepareBuilder {
                amount: 1,
                expires_at: Timestamp::from_unix_ms(0),
                condition: [0; 32],
                destination: Addr::new(&elsewhere).unwrap(),
                data: &[],
            };
            let prepare = Prepare::parse(prepare.encode().unwrap()).unwrap();
            let answer = receiver.handle_prepare(&mut client.rng, alice, &prepare);
            let Ok(Reply::Reject(reject)) = Reply::parse(answer.packet) else {
                panic!()
            };
            assert_eq!(reject.code(), ErrorCode::F02_UNREACHABLE);
        }
    }

    #[test]
    fn a_restarted_server_knows_its_tokens() {
        let receipt = ReceiptDetails {
            nonce: [3; 16],
            secret: ReceiptSecret::from_bytes([4; 32]),
        };
        let mut client = Client::with(Some(&receipt));
        assert_eq!(
            client.pay(5, 0, &[money(1, 1)]).frames,
            "asset EUR/6, stream 1 has 5, receipt 1 5"
        );
        client.receiver = Receiver::new(&[1; 32], Asset::new("EUR", 6).unwrap(), 8);
        assert_eq!(
            client.pay(7, 0, &[money(1, 1)]).frames,
            "asset EUR/6, stream 1 has 7, receipt 1 7"
        );
        client.receiver = Receiver::new(&[2; 32], Asset::new("EUR", 6).unwrap(), 8);
        assert_eq!(client.pay(5, 0, &[]), bare(ErrorCode::F02_UNREACHABLE));
    }

    #[test]
    fn receipts_are_signed_for_what_was_fulfilled_and_hide_their_secret() {
        let receipt = ReceiptDetails {
            nonce: [3; 16],
            secret: ReceiptSecret::from_bytes([4; 32]),
        };
        let mut client = Client::with(Some(&receipt));
        client.probe(1, &[]);
        assert_eq!(client.probe(9, &[money(1, 1)]).frames, "stream 1 has 0");
        assert_eq!(
            client.pay(10, 0, &[money(1, 1), money(3, 1)]).frames,
            "stream 1 has 5, stream 3 has 5, receipt 1 5, receipt 3 5"
        );
        assert_eq!(
            client.pay(4, 0, &[money(3, 1)]).frames,
            "stream 3 has 9, receipt 3 9"
        );
        let token = client.destination.as_str().rsplit('.').next().unwrap();
        let token = BASE64_URL_SAFE_NO_PAD.decode(token).unwrap();
        assert!(
            !token
                .windows(4)
                .any(|bytes| bytes == [4; 4] || bytes == [3; 4])
        );
    }

    #[test]
    fn shares_split_the_money_and_the_rest_goes_to_the_lowest_stream() {
        let mut client = Client::new();
        client.probe(1, &[]);
        assert_eq!(
            client.pay(100, 0, &[money(5, 1), money(3, 1), money(1, 1)]),
            fulfilled(100, "stream 1 has 34, stream 3 has 33, stream 5 has 33")
        );
        assert_eq!(
            client.pay(10, 0, &[money(3, u64::MAX - 1), money(3, 1)]),
            fulfilled(10, "stream 3 has 43")
        );
    }

    #[test]
    fn shares_that_make_no_sense_are_refused_with_money_only() {
        let mut client = Client::new();
        client.probe(1, &[]);
        assert_eq!(
            client
                .pay(1, 0, &[money(1, u64::MAX), money(3, 1)])
                .received,
            None
        );
        assert_eq!(
            client.pay(1, 0, &[money(1, 0)]),
            rejected(1, "stream 1 has 0")
        );
        assert_eq!(
            client.pay(0, 0, &[money(1, 0)]),
            fulfilled(0, "stream 1 has 0")
        );
        assert_eq!(
            client.pay(1, 0, &[]),
            fulfilled(1, ""),
            "money for no stream is money"
        );
    }

    #[test]
    fn totals_do_not_overflow() {
        let mut client = Client::new();
        client.probe(1, &[]);
        assert_eq!(
            client.pay(u64::MAX, 0, &[money(1, 1)]).received,
            Some(u64::MAX)
        );
        assert_eq!(
            client.pay(1, 0, &[money(3, 1)]),
            rejected(1, "stream 3 has 0")
        );
    }

    #[test]
    fn streams_that_a_client_may_not_open_close_the_connection() {
        for (id, close) in [(0, 8), (2, 8), (21, 5), (22, 8), (u64::MAX, 5)] {
            let mut client = Client::new();
            client.probe(1, &[]);
            assert_eq!(
                client.pay(5, 0, &[money(id, 1)]),
                rejected(5, &format!("close {close}"))
            );
            assert_eq!(
                client.pay(5, 0, &[]),
                rejected(5, &format!("close {close}"))
            );
        }
        let mut client = Client::new();
        client.probe(1, &[]);
        for id in (1..=19).step_by(2) {
            assert_eq!(
                client.pay(5, 0, &[money(id, 1)]),
                fulfilled(5, &format!("stream {id} has 5"))
            );
        }
    }

    #[test]
    fn closes_are_heard_even_with_packets_that_are_refused() {
        let close = Frame::ConnectionClose {
            error_code: CloseCode::NO_ERROR,
            error_message: "",
        };
        let mut client = Client::new();
        client.probe(1, &[]);
        assert_eq!(client.probe(0, &[close]), rejected(0, "close 1"));
        assert_eq!(
            client.pay(5, 0, &[money(1, 1)]),
            rejected(5, "stream 1 has 0, close 1")
        );
        assert_eq!(
            client.pay(0, 0, &[close]),
            fulfilled(0, "close 1"),
            "or it is repeated for ever"
        );
    }

    #[test]
    fn a_closed_stream_takes_nothing() {
        let close = Frame::StreamClose {
            stream_id: 1,
            error_code: CloseCode::NO_ERROR,
            error_message: "",
        };
        let mut client = Client::new();
        client.probe(1, &[]);
        assert_eq!(
            client.pay(5, 0, &[money(1, 1), close]),
            fulfilled(5, "stream 1 has 5")
        );
        for frame in [money(1, 1), data(1, 0, b"x")] {
            assert_eq!(client.pay(5, 0, &[frame]), rejected(5, "stream 1 close 6"));
        }
        assert_eq!(
            client.pay(5, 0, &[money(3, 1)]),
            fulfilled(5, "stream 3 has 5")
        );
    }

    #[test]
    fn data_is_tolerated_within_the_limits_in_any_order() {
        let mut client = Client::new();
        client.probe(1, &[]);
        let bytes = [0; 16_384];
        for frames in [
            [data(1, 100, b"late")],
            [data(1, 0, b"early")],
            [data(1, 100, b"late")],
            [data(1, 0, &bytes)],
        ] {
            assert_eq!(client.pay(1, 0, &frames).code, None);
        }
        assert_eq!(
            client.pay(1, 0, &[data(1, 16_384, b"x")]),
            rejected(1, "stream 1 has 0, close 4")
        );
        let mut client = Client::new();
        client.probe(1, &[]);
        for id in [1, 3, 5] {
            assert_eq!(client.pay(0, 0, &[data(id, 0, &bytes)]).code, None);
        }
        assert_eq!(
            client
                .pay(0, 0, &[data(7, 16_382, b""), data(9, 0, b"x")])
                .frames,
            "stream 7 has 0, stream 9 has 0, close 4"
        );
        let mut client = Client::new();
        assert_eq!(
            client.pay(0, 0, &[data(1, u64::MAX, b"xy")]).code,
            Some(ErrorCode::F99_APPLICATION_ERROR)
        );
    }

    #[test]
    fn frames_that_cannot_be_read_close_the_connection_and_unknown_ones_do_not() {
        let mut client = Client::new();
        client.probe(1, &[]);
        let mut plaintext = client.plaintext(0, &[]);
        *plaintext.last_mut().unwrap() = 1;
        assert_eq!(
            client.pay_plaintext(5, &[&plaintext[..], &[0x77, 1, 1]].concat()),
            fulfilled(5, "")
        );
        assert_eq!(
            client.pay_plaintext(5, &[&plaintext[..], &[0x11, 1, 1]].concat()),
            rejected(5, "close 7")
        );
    }

    #[test]
    fn the_connection_idle_longest_is_forgotten() {
        let mut client = Client::new();
        client.receiver = Receiver::new(&[1; 32], Asset::new("EUR", 6).unwrap(), 2);
        let account = ACCOUNT.parse().unwrap();
        let mut connections = vec![];
        for _ in 0..3 {
            let new = client
                .receiver
                .credentials(&mut client.rng, &account, None)
                .unwrap();
            connections.push((new.destination_account, new.shared_secret));
        }
        let mut pay = |index: usize| {
            let (destination, secret) = &connections[index];
            client.destination = destination.clone();
            client.keys = Keys::new(secret.as_bytes());
            let said = client.pay(1, 0, &[money(1, 1)]);
            assert!(client.receiver.connections.by_token.len() <= 2);
            assert_eq!(
                client.receiver.connections.by_token.len(),
                client.receiver.connections.by_use.len()
            );
            said.frames.rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!(
            [0, 1, 0, 2, 0, 1].map(&mut pay),
            ["1", "1", "2", "1", "3", "1"]
        );
    }

    #[test]
    fn addresses_are_short_enough_to_travel() {
        let receipt = ReceiptDetails {
            nonce: [3; 16],
            secret: ReceiptSecret::from_bytes([4; 32]),
        };
        assert_eq!(
            Client::new().destination.as_str().len(),
            ACCOUNT.len() + 1 + 44
        );
        assert_eq!(
            Client::with(Some(&receipt)).destination.as_str().len(),
            ACCOUNT.len() + 1 + 108
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_plaintext_is_answered(frames in proptest::collection::vec(any::<u8>(), 0..200), count in 0..9u8, amount: u64) {
            let mut client = Client::new();
            let mut plaintext = client.plaintext(0, &[]);
            *plaintext.last_mut().unwrap() = count;
            plaintext.extend(frames);
            client.pay_plaintext(amount, &plaintext);
        }

        #[test]
        fn whatever_is_fulfilled_is_on_the_streams(
            payments in proptest::collection::vec((any::<u32>(), proptest::collection::vec((0..10u64, any::<u64>()), 1..5)), 1..6),
        ) {
            let mut client = Client::new();
            let mut total = 0;
            for (amount, shares) in payments {
                let frames: Vec<_> = shares.iter().map(|(index, shares)| money(2 * index + 1, *shares)).collect();
                total += client.pay(amount.into(), 0, &frames).received.unwrap_or_default();
            }
            let token = client.destination.as_str().rsplit('.').next().unwrap();
            let connection = client.receiver.connections.get(Addr::new(ACCOUNT).unwrap(), token).unwrap();
            prop_assert_eq!(connection.received, total);
            prop_assert_eq!(connection.streams.iter().map(|stream| stream.received).sum::<u64>(), total);
        }
    }
}
