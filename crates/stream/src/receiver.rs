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
