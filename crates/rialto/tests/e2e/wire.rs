//! A wire between processes on which the test sees each message before it arrives, and at one of its
//! choice holds everything up: whoever is to be killed then, is killed exactly then.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

use crate::harness::WAIT_MAX;

/// First bytes of a frame of channels (the book, How channels work).
const MAGIC: [u8; 8] = [0x93, b'R', b'L', b'C', b'H', b'A', b'N', b'\n'];

/// One message on its way: an HTTP message, or what one WebSocket frame has in it.
pub(crate) struct Passing {
    /// Who sent it, by the number that the test gave.
    pub(crate) from: usize,
    /// It answers what came from the other side.
    pub(crate) is_answer: bool,
    /// The first line of the HTTP request that this is, or answers.
    pub(crate) request: String,
    /// What a frame of channels says or answers: the first byte of the body of the message.
    pub(crate) what: Option<u8>,
}

/// One direction of a connection.
struct Way {
    from: usize,
    /// What passes answers the other direction.
    is_answer: bool,
    /// Of the wire, when it was connected.
    life: u64,
    /// The first line of the latest request, of both directions.
    request: Arc<Mutex<String>>,
}

type Trap = Box<dyn Fn(&Passing) -> bool + Send>;

#[derive(Default)]
struct State {
    /// Each is sprung once, in order.
    traps: VecDeque<Trap>,
    /// A trap was sprung: nothing passes.
    is_held: bool,
    /// Connections of an earlier life are cut.
    life: u64,
    /// What was held up arrives before its connection is cut.
    arrives: bool,
    /// Messages of channels that were told: by whom, the channel, the number; and what they say.
    told: BTreeMap<(usize, [u8; 16], u64), u8>,
}

/// All connections between those who take part.
#[derive(Clone, Default)]
pub(crate) struct Wire(Arc<(Mutex<State>, Condvar)>);

impl Wire {
    /// Where `caller` reaches `called`, which listens at `to`. Both are numbers of the test's.
    pub(crate) fn lay(&self, caller: usize, called: usize, to: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let wire = self.clone();
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let life = wire.passable().life;
                // Nobody there: the caller finds its connection closed.
                let Ok(far) = TcpStream::connect(to) else {
                    continue;
                };
                let request = Arc::<Mutex<String>>::default();
                for (from, is_answer, source, sink) in
                    [(caller, false, &near, &far), (called, true, &far, &near)]
                {
                    let (wire, request, source, sink) = (
                        wire.clone(),
                        Arc::clone(&request),
                        source.try_clone().unwrap(),
                        sink.try_clone().unwrap(),
                    );
                    thread::spawn(move || {
                        let way = Way {
                            from,
                            is_answer,
                            life,
                            request,
                        };
                        wire.carry(&way, &source, &sink);
                        for end in [source, sink] {
                            let _ = end.shutdown(Shutdown::Both);
                        }
                    });
                }
            }
        });
        address
    }

    /// The next message of which `trap` says so is held up, and all others with it. One that comes before
    /// its turn, since an earlier trap was not sprung, is lost.
    pub(crate) fn arm(&self, trap: impl Fn(&Passing) -> bool + Send + 'static) {
        let mut state = self.0.0.lock().unwrap();
        state.traps.push_back(Box::new(trap));
    }

    /// Waits until a message is held up.
    pub(crate) fn wait_held(&self, what: &str) {
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap();
        let waited = changed.wait_timeout_while(state, WAIT_MAX, |state| !state.is_held);
        assert!(!waited.unwrap().1.timed_out(), "waited too long for {what}");
    }

    /// Cuts all connections. What was held up arrives first, if it is to; nothing else does.
    pub(crate) fn cut(&self, arrives: bool) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        (state.is_held, state.arrives) = (false, arrives);
        state.life += 1;
        changed.notify_all();
    }

    /// Waits while everything is held up.
    fn passable(&self) -> MutexGuard<'_, State> {
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap();
        changed.wait_while(state, |state| state.is_held).unwrap()
    }

    /// Carries messages one way, until the connection ends.
    fn carry(&self, way: &Way, source: &TcpStream, mut sink: &TcpStream) -> Option<()> {
        let from = way.from;
        let mut reader = BufReader::new(source);
        let mut is_websocket = false;
        loop {
            let message = Message::read(&mut reader, is_websocket)?;
            is_websocket |= message.is_upgrade();
            let mut state = self.passable();
            if state.life != way.life {
                return None;
            }
            let is_answer = match is_websocket {
                true => message.plain.first() == Some(&1), // a response of BTP
                false => way.is_answer,
            };
            let what = state.what(from, is_answer, &message.plain);
            let mut request = way.request.lock().unwrap();
            if !is_websocket && !is_answer {
                *request = message.first_line();
            }
            let passing = Passing {
                from,
                is_answer,
                request: request.clone(),
                what,
            };
            drop(request);
            match state.traps.iter().position(|trap| trap(&passing)) {
                Some(0) => {
                    state.traps.pop_front();
                    state.is_held = true;
                    self.0.1.notify_all();
                    drop(state);
                    if !self.passable().arrives {
                        return None;
                    }
                    return sink.write_all(&message.raw).ok();
                }
                Some(_) => continue,
                None => {}
            }
            drop(state);
            sink.write_all(&message.raw).ok()?;
        }
    }
}

impl State {
    /// What a frame of channels says, or the message that it answers.
    fn what(&mut self, from: usize, is_answer: bool, plain: &[u8]) -> Option<u8> {
        let at = plain.windows(8).position(|eight| eight == MAGIC)?;
        // Version, channel, kind, sequence, acknowledgement, length of the body, body.
        let frame = &plain[at + MAGIC.len() + 1..];
        let channel = frame[..16].try_into().unwrap();
        let sequence = u64::from_be_bytes(frame[17..25].try_into().unwrap());
        let body = &frame[33..];
        let more = match body[0] {
            length @ 0x80.. => usize::from(length & 0x7f),
            _ => 0,
        };
        let what = body[1 + more];
        match is_answer {
            true => self.told.get(&(1 - from, channel, sequence)).copied(),
            false => {
                self.told.insert((from, channel, sequence), what);
                Some(what)
            }
        }
    }
}

/// A message as it goes over the wire, and what it says.
struct Message {
    raw: Vec<u8>,
    plain: Vec<u8>,
}

impl Message {
    fn read(reader: &mut impl BufRead, is_websocket: bool) -> Option<Self> {
        match is_websocket {
            true => Self::read_websocket(reader),
            false => Self::read_http(reader),
        }
    }

    fn read_http(reader: &mut impl BufRead) -> Option<Self> {
        let (mut raw, mut length) = (Vec::new(), 0);
        loop {
            let start = raw.len();
            if reader.read_until(b'\n', &mut raw).ok()? == 0 {
                return None;
            }
            let line = String::from_utf8_lossy(&raw[start..]).to_lowercase();
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let head = raw.len();
        raw.resize(head + length, 0);
        reader.read_exact(&mut raw[head..]).ok()?;
        let plain = raw.clone();
        Some(Self { raw, plain })
    }

    fn read_websocket(reader: &mut impl BufRead) -> Option<Self> {
        let mut raw = vec![0; 2];
        reader.read_exact(&mut raw).ok()?;
        let (is_masked, short) = (raw[1] & 0x80 != 0, raw[1] & 0x7f);
        let more = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        raw.resize(2 + more, 0);
        reader.read_exact(&mut raw[2..]).ok()?;
        let length = raw[2..]
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let length = if more == 0 {
            usize::from(short)
        } else {
            length
        };
        let head = raw.len() + if is_masked { 4 } else { 0 };
        raw.resize(head + length, 0);
        reader.read_exact(&mut raw[2 + more..]).ok()?;
        let mut plain = raw[head..].to_vec();
        if is_masked {
            let mask: [u8; 4] = raw[head - 4..head].try_into().unwrap();
            let masks = mask.iter().cycle();
            plain
                .iter_mut()
                .zip(masks)
                .for_each(|(byte, mask)| *byte ^= mask);
        }
        Some(Self { raw, plain })
    }

    fn first_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.raw);
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// A head after which there are WebSocket frames.
    fn is_upgrade(&self) -> bool {
        let text = String::from_utf8_lossy(&self.raw).to_lowercase();
        (text.starts_with("get ") || text.starts_with("http/1.1 101"))
            && text.contains("upgrade: websocket")
    }
}
