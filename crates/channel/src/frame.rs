//! The bytes of frames, and of what is in them.
//!
//! A frame is the data of a `peer.settle` packet. It is a request; the data of the Fulfill is the
//! frame that answers it.
//!
//! ```text
//! magic            8 bytes, MAGIC
//! version          UInt8, 1
//! channel          16 bytes, zeros in a greeting
//! kind             UInt8: of the channel, 0 in a greeting
//! sequence         UInt64: of the message; in an answer, of the message it answers
//! acknowledgement  UInt64: the last message of the channel that the sender of the frame took
//! body             VarOctetString: a UInt8 that says what, and its fields
//! ```
//!
//! Integers are big-endian, texts are UTF-8. There is one encoding of each frame: every other is
//! refused, as are bytes after the end.

use rialto_packet::oer::{self, OerError, Reader};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    sign::{Final, Word},
    terms::{
        ChannelId, Digest, Kind, Limits, ParseError, PublicKey, Signature, Terms, encode_limits,
        parse_limits,
    },
    text,
};

/// First bytes of every frame, by which they are told from messages of settlement engines.
pub const MAGIC: [u8; 8] = *b"\x93RLCHAN\n";

/// The version of frames and channels that this crate speaks.
pub const VERSION: u8 = 1;

/// Longest text for people in a frame.
pub const TEXT_BYTES_MAX: usize = 255;

/// Most channels in one greeting, and so most that have not ended between two nodes.
pub const CHANNELS_MAX: usize = 64;

/// Most versions, and most kinds, in one greeting.
const NAMES_MAX: usize = 32;

const GREETING: u8 = 0x01;
const PROPOSE: u8 = 0x10;
const ACCEPT: u8 = 0x11;
const DECLINE: u8 = 0x12;
const CLAIM: u8 = 0x20;
const ORDER: u8 = 0x21;
const CREDIT: u8 = 0x22;
const CHANGE: u8 = 0x30;
const CHANGE_ACCEPT: u8 = 0x31;
const CHANGE_DECLINE: u8 = 0x32;
const CLOSE: u8 = 0x40;
const FINAL: u8 = 0x41;
const CLOSE_ALONE: u8 = 0x42;
const TAKEN: u8 = 0x80;
const REFUSED: u8 = 0x81;
const EXPECTED: u8 = 0x82;
const GREET_FIRST: u8 = 0x83;
const UNKNOWN: u8 = 0x84;
const LATER: u8 = 0x85;

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Truncated or badly encoded.
    #[error("malformed frame: {0}")]
    Oer(#[from] OerError),
    /// Not the bytes that every frame begins with.
    #[error("does not begin like a frame")]
    Magic,
    /// Of a version that is not spoken here.
    #[error("frame of version {0}, only version {VERSION} is known")]
    Version(u8),
    /// A body of no known sort.
    #[error("frame with a body of unknown sort {0:#04x}")]
    Body(u8),
    /// A kind of channel that is not spoken here.
    #[error("channel of unknown kind {0}")]
    Kind(u8),
    /// The asset is not one.
    #[error("malformed asset")]
    Asset,
    /// A text that is too long, not UTF-8 or not for people's eyes.
    #[error("malformed text")]
    Text,
    /// More entries than there may be.
    #[error("too many entries in a greeting")]
    TooMany,
    /// Another encoding than the one that there is, or bytes after the end.
    #[error("not the one encoding of the frame")]
    NotCanonical,
}

impl From<ParseError> for FrameError {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Oer(error) => Self::Oer(error),
            ParseError::Kind(kind) => Self::Kind(kind),
            ParseError::Asset => Self::Asset,
        }
    }
}

/// Whether the data of a packet is meant for the channels, and not for a settlement engine.
pub fn is_ours(data: &[u8]) -> bool {
    data.starts_with(&MAGIC)
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Of which channel.
    pub channel: ChannelId,
    /// What kind of channel that is; `None` in a greeting.
    pub kind: Option<Kind>,
    /// Of which message of it, counted from 1 by its sender.
    pub sequence: u64,
    /// The last message that the frame's sender took from the other side.
    pub acknowledgement: u64,
    /// What it says.
    pub body: Body,
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Both as a request and as its answer.
    Greeting(Greeting),
    /// A step of a channel.
    Message(Message),
    /// What became of a message.
    Answer(Answer),
}

/// Who somebody is on channels and what they speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Versions of frames.
    pub versions: Vec<u8>,
    /// Numbers of kinds of channels; those that the reader does not know are left alone.
    pub kinds: Vec<u8>,
    /// Their key.
    pub key: PublicKey,
    /// Where their channels with the reader stand, those that have ended left out.
    pub channels: Vec<Standing>,
}

impl Greeting {
    /// Whether both sides speak this kind, in a version that is known here.
    pub fn speaks(&self, kind: Kind) -> bool {
        self.versions.contains(&VERSION) && self.kinds.contains(&kind.code())
    }
}

/// Where a channel stands, as one side says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub channel: ChannelId,
    /// All that the speaker paid.
    pub paid: u64,
    /// All that the speaker was paid.
    pub received: u64,
    /// The last message that the speaker made.
    pub sent_sequence: u64,
    /// The last message that the speaker took.
    pub taken_sequence: u64,
}

/// A step of a channel that the other side has to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case", deny_unknown_fields)]
pub enum Message {
    /// Opens a channel, if the other side agrees.
    Propose {
        /// On what terms.
        terms: Terms,
        /// The opener's, under the terms.
        signature: Signature,
    },
    /// Agrees to the terms.
    Accept {
        /// The accepter's, under the terms.
        signature: Signature,
    },
    /// Does not agree.
    Decline {
        /// For people.
        reason: String,
    },
    /// A payment over a symmetrical trustline.
    Claim {
        /// All that the payer has paid over the channel, this included.
        #[serde(with = "text")]
        total: u64,
        /// Of the terms it is made under.
        terms: Digest,
        /// The payer's.
        signature: Signature,
    },
    /// A payment over an asymmetrical trustline, from the holder to the keeper.
    Order {
        /// Counts the holder's transfers.
        number: u64,
        /// How much.
        #[serde(with = "text")]
        amount: u64,
        /// All that the holder has ordered, this included.
        #[serde(with = "text")]
        total: u64,
        /// Of the terms it is made under.
        terms: Digest,
        /// The holder's.
        signature: Signature,
    },
    /// A payment over an asymmetrical trustline, from the keeper to the holder.
    Credit {
        /// Counts the keeper's transfers.
        number: u64,
        /// How much.
        #[serde(with = "text")]
        amount: u64,
        /// Where the account stands now.
        word: Word,
    },
    /// Proposes other limits.
    Change {
        /// Which.
        limits: Limits,
        /// The proposer's, under the terms with these limits.
        signature: Signature,
    },
    /// Agrees to other limits.
    ChangeAccept {
        /// Which change.
        revision: u32,
        /// The accepter's, under the terms with these limits.
        signature: Signature,
    },
    /// Does not.
    ChangeDecline {
        /// Which change.
        revision: u32,
        /// For people.
        reason: String,
    },
    /// Asks to end the channel: its sender makes no payment after it.
    Close,
    /// How it ends: no payment of its sender's comes after it.
    Final {
        /// Totals, signed.
        ending: Final,
    },
    /// The channel has ended for its sender, who waits for nobody.
    CloseAlone,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was taken, now or before.
    Taken {
        /// From the keeper of an asymmetrical trustline.
        word: Option<Word>,
    },
    /// It was refused, now or before, for good.
    Refused {
        /// For people.
        reason: String,
    },
    /// It is not the one that comes after the frame's acknowledgement.
    Expected,
    /// No greeting was exchanged since the answerer started.
    GreetFirst,
    /// There is no such channel with its sender.
    Unknown {
        /// For people.
        reason: String,
    },
    /// Not now: nothing was decided.
    Later,
}

impl Frame {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(160);
        self.body.encode(&mut body);
        let mut out = Vec::with_capacity(MAGIC.len() + 40 + body.len());
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.channel.0);
        out.push(self.kind.map_or(0, Kind::code));
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.acknowledgement.to_be_bytes());
        oer::put_var_octets(&mut out, &body);
        out
    }

    /// Reads the data of a packet.
    pub fn parse(data: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(data);
        if reader.array::<8>()? != MAGIC {
            return Err(FrameError::Magic);
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let frame = Self {
            channel: ChannelId(reader.array()?),
            kind: match reader.u8()? {
                0 => None,
                code => Some(Kind::of_code(code).ok_or(FrameError::Kind(code))?),
            },
            sequence: reader.u64()?,
            acknowledgement: reader.u64()?,
            body: Body::parse(reader.var_octets()?)?,
        };
        if frame.encode() != data {
            return Err(FrameError::NotCanonical);
        }
        Ok(frame)
    }
}

impl Message {
    /// The bytes of the body.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Propose { terms, signature } => {
                out.push(PROPOSE);
                terms.encode(out);
                out.extend_from_slice(&signature.0);
            }
            Self::Accept { signature } => {
                out.push(ACCEPT);
                out.extend_from_slice(&signature.0);
            }
            Self::Decline { reason } => {
                out.push(DECLINE);
                put_text(out, reason);
            }
            Self::Claim {
                total,
                terms,
                signature,
            } => {
                out.push(CLAIM);
                out.extend_from_slice(&total.to_be_bytes());
                out.extend_from_slice(&terms.0);
                out.extend_from_slice(&signature.0);
            }
            Self::Order {
                number,
                amount,
                total,
                terms,
                signature,
            } => {
                out.push(ORDER);
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&amount.to_be_bytes());
                out.extend_from_slice(&total.to_be_bytes());
                out.extend_from_slice(&terms.0);
                out.extend_from_slice(&signature.0);
            }
            Self::Credit {
                number,
                amount,
                word,
            } => {
                out.push(CREDIT);
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&amount.to_be_bytes());
                put_word(out, word);
            }
            Self::Change { limits, signature } => {
                out.push(CHANGE);
                encode_limits(limits, out);
                out.extend_from_slice(&signature.0);
            }
            Self::ChangeAccept {
                revision,
                signature,
            } => {
                out.push(CHANGE_ACCEPT);
                out.extend_from_slice(&revision.to_be_bytes());
                out.extend_from_slice(&signature.0);
            }
            Self::ChangeDecline { revision, reason } => {
                out.push(CHANGE_DECLINE);
                out.extend_from_slice(&revision.to_be_bytes());
                put_text(out, reason);
            }
            Self::Close => out.push(CLOSE),
            Self::Final { ending } => {
                out.push(FINAL);
                out.extend_from_slice(&ending.opener_paid.to_be_bytes());
                out.extend_from_slice(&ending.accepter_paid.to_be_bytes());
                out.extend_from_slice(&ending.signature.0);
            }
            Self::CloseAlone => out.push(CLOSE_ALONE),
        }
    }
}

impl Body {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Greeting(greeting) => {
                out.push(GREETING);
                oer::put_var_octets(out, &greeting.versions);
                oer::put_var_octets(out, &greeting.kinds);
                out.extend_from_slice(&greeting.key.0);
                let count = u8::try_from(greeting.channels.len());
                out.push(count.expect("there are at most CHANNELS_MAX"));
                for standing in &greeting.channels {
                    out.extend_from_slice(&standing.channel.0);
                    out.extend_from_slice(&standing.paid.to_be_bytes());
                    out.extend_from_slice(&standing.received.to_be_bytes());
                    out.extend_from_slice(&standing.sent_sequence.to_be_bytes());
                    out.extend_from_slice(&standing.taken_sequence.to_be_bytes());
                }
            }
            Self::Message(message) => message.encode(out),
            Self::Answer(answer) => match answer {
                Answer::Taken { word } => {
                    out.push(TAKEN);
                    out.push(u8::from(word.is_some()));
                    if let Some(word) = word {
                        put_word(out, word);
                    }
                }
                Answer::Refused { reason } => {
                    out.push(REFUSED);
                    put_text(out, reason);
                }
                Answer::Expected => out.push(EXPECTED),
                Answer::GreetFirst => out.push(GREET_FIRST),
                Answer::Unknown { reason } => {
                    out.push(UNKNOWN);
                    put_text(out, reason);
                }
                Answer::Later => out.push(LATER),
            },
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(bytes);
        let sort = reader.u8()?;
        let body = match sort {
            GREETING => Self::Greeting(parse_greeting(&mut reader)?),
            TAKEN => Self::Answer(Answer::Taken {
                word: match reader.u8()? {
                    0 => None,
                    1 => Some(parse_word(&mut reader)?),
                    _ => return Err(FrameError::NotCanonical),
                },
            }),
            REFUSED => Self::Answer(Answer::Refused {
                reason: parse_text(&mut reader)?,
            }),
            EXPECTED => Self::Answer(Answer::Expected),
            GREET_FIRST => Self::Answer(Answer::GreetFirst),
            UNKNOWN => Self::Answer(Answer::Unknown {
                reason: parse_text(&mut reader)?,
            }),
            LATER => Self::Answer(Answer::Later),
            _ => Self::Message(parse_message(sort, &mut reader)?),
        };
        if !reader.is_empty() {
            return Err(FrameError::NotCanonical);
        }
        Ok(body)
    }
}

fn parse_message(sort: u8, reader: &mut Reader<'_>) -> Result<Message, FrameError> {
    Ok(match sort {
        PROPOSE => Message::Propose {
            terms: Terms::parse(reader)?,
            signature: Signature(reader.array()?),
        },
        ACCEPT => Message::Accept {
            signature: Signature(reader.array()?),
        },
        DECLINE => Message::Decline {
            reason: parse_text(reader)?,
        },
        CLAIM => Message::Claim {
            total: reader.u64()?,
            terms: Digest(reader.array()?),
            signature: Signature(reader.array()?),
        },
        ORDER => Message::Order {
            number: reader.u64()?,
            amount: reader.u64()?,
            total: reader.u64()?,
            terms: Digest(reader.array()?),
            signature: Signature(reader.array()?),
        },
        CREDIT => Message::Credit {
            number: reader.u64()?,
            amount: reader.u64()?,
            word: parse_word(reader)?,
        },
        CHANGE => Message::Change {
            limits: parse_limits(reader)?,
            signature: Signature(reader.array()?),
        },
        CHANGE_ACCEPT => Message::ChangeAccept {
            revision: reader.u32()?,
            signature: Signature(reader.array()?),
        },
        CHANGE_DECLINE => Message::ChangeDecline {
            revision: reader.u32()?,
            reason: parse_text(reader)?,
        },
        CLOSE => Message::Close,
        FINAL => Message::Final {
            ending: Final {
                opener_paid: reader.u64()?,
                accepter_paid: reader.u64()?,
                signature: Signature(reader.array()?),
            },
        },
        CLOSE_ALONE => Message::CloseAlone,
        sort => return Err(FrameError::Body(sort)),
    })
}

fn parse_greeting(reader: &mut Reader<'_>) -> Result<Greeting, FrameError> {
    let versions = reader.var_octets()?.to_vec();
    let kinds = reader.var_octets()?.to_vec();
    let key = PublicKey(reader.array()?);
    let count = usize::from(reader.u8()?);
    if count > CHANNELS_MAX || versions.len() > NAMES_MAX || kinds.len() > NAMES_MAX {
        return Err(FrameError::TooMany);
    }
    let mut channels = Vec::with_capacity(count);
    for _ in 0..count {
        channels.push(Standing {
            channel: ChannelId(reader.array()?),
            paid: reader.u64()?,
            received: reader.u64()?,
            sent_sequence: reader.u64()?,
            taken_sequence: reader.u64()?,
        });
    }
    Ok(Greeting {
        versions,
        kinds,
        key,
        channels,
    })
}

fn put_word(out: &mut Vec<u8>, word: &Word) {
    out.extend_from_slice(&word.credited.to_be_bytes());
    out.extend_from_slice(&word.debited.to_be_bytes());
    out.extend_from_slice(&word.terms.0);
    out.extend_from_slice(&word.signature.0);
}

fn parse_word(reader: &mut Reader<'_>) -> Result<Word, OerError> {
    Ok(Word {
        credited: reader.u64()?,
        debited: reader.u64()?,
        terms: Digest(reader.array()?),
        signature: Signature(reader.array()?),
    })
}

/// Writes a text, cut where it is too long.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    oer::put_var_octets(out, &text.as_bytes()[..end]);
}

fn parse_text(reader: &mut Reader<'_>) -> Result<String, FrameError> {
    let bytes = reader.var_octets()?;
    let text = std::str::from_utf8(bytes).map_err(|_| FrameError::Text)?;
    if bytes.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(FrameError::Text);
    }
    Ok(text.to_owned())
}
