//! Route control and route update.

use rialto_packet::{
    Addr, Address, AddressError, Prefix,
    oer::{self, OerError, Reader},
};
use thiserror::Error;

/// Most data that we put into one update, well below what a packet may carry (32,767 bytes).
pub const UPDATE_BYTES_MAX: usize = 32_000;

/// Bytes of a route's authentication, which nobody checks.
pub const AUTH_BYTES: usize = 32;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Truncated or badly encoded.
    #[error("malformed message: {0}")]
    Oer(#[from] OerError),
    /// A mode other than idle and sync.
    #[error("mode {0} is neither idle (0) nor sync (1)")]
    Mode(u8),
    /// The speaker or a part of a path is not an address.
    #[error("malformed address: {0}")]
    Address(AddressError),
    /// What a route applies to is not a prefix.
    #[error("malformed prefix: {0}")]
    Prefix(AddressError),
}

/// Names one state of a speaker's table; within it, epochs only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub [u8; 16]);

impl TableId {
    /// What is asked with when no table is known.
    pub const NONE: Self = Self([0; 16]);
}

/// As a UUID is written.
impl std::fmt::Display for TableId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Whether the asker wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No more.
    Idle,
    /// From now on.
    Sync,
}

/// Asks a peer for its routes, or not to tell them any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteControl {
    /// Whether it asks.
    pub mode: Mode,
    /// The table that the asker knows.
    pub table_id: TableId,
    /// How far it knows it.
    pub epoch: u32,
    /// Words for extensions. None is defined.
    pub features: Vec<Vec<u8>>,
}

impl RouteControl {
    /// Reads the data of a Prepare; bytes after the last field are ignored.
    pub fn parse(data: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(data);
        let mode = match reader.u8()? {
            0 => Mode::Idle,
            1 => Mode::Sync,
            other => return Err(MessageError::Mode(other)),
        };
        let (table_id, epoch) = (TableId(reader.array()?), reader.u32()?);
        let mut features = Vec::new();
        for _ in 0..reader.var_uint()? {
            features.push(reader.var_octets()?.to_vec());
        }
        Ok(Self {
            mode,
            table_id,
            epoch,
            features,
        })
    }

    /// The data of a Prepare.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![match self.mode {
            Mode::Idle => 0,
            Mode::Sync => 1,
        }];
        out.extend_from_slice(&self.table_id.0);
        out.extend_from_slice(&self.epoch.to_be_bytes());
        oer::put_var_uint(&mut out, self.features.len() as u64);
        for feature in &self.features {
            oer::put_var_octets(&mut out, feature);
        }
        out
    }
}

/// What stands before the routes of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdateHead {
    /// The speaker's table.
    pub table_id: TableId,
    /// How far the speaker's table goes.
    pub current_epoch: u32,
    /// The update applies on top of this state.
    pub from_epoch: u32,
    /// The state after it.
    pub to_epoch: u32,
    /// How long the speaker's routes hold without another update. Milliseconds.
    pub hold_down_ms: u32,
}

/// A list inside a message: how many things, and their bytes, which were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List<'a> {
    /// How many.
    pub count: usize,
    /// One after the other.
    pub bytes: &'a [u8],
}

/// A route as a peer tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'a> {
    /// What it applies to; may be empty. Valid, apart from that.
    pub prefix: &'a str,
    /// The nodes that it leads through, the speaker first. May be empty.
    pub path: List<'a>,
    /// Authentication, unchecked.
    pub auth: [u8; AUTH_BYTES],
    /// Properties. None is defined.
    pub properties: List<'a>,
}

impl<'a> Route<'a> {
    /// The nodes of the path.
    pub fn hops(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        hops(self.path.bytes)
    }
}

/// The nodes of a path from [`Route::path`].
pub fn hops(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let mut reader = Reader::new(bytes);
    std::iter::from_fn(move || std::str::from_utf8(reader.var_octets().ok()?).ok())
}

/// Where a walk through one of the lists of an update stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    at: usize,
    left: usize,
}

impl Cursor {
    /// Things that are left.
    pub fn left(&self) -> usize {
        self.left
    }

    /// At the beginning of a list. Its count is a stranger's word.
    fn read(reader: &mut Reader<'_>) -> Result<Self, MessageError> {
        let count = reader.var_uint()?;
        let left = usize::try_from(count).map_err(|_| OerError::IntegerTooLarge)?;
        let at = reader.position();
        Ok(Self { at, left })
    }

    /// Past the one that was read from where it stood.
    fn pass(&mut self, reader: &Reader<'_>) {
        self.at += reader.position();
        self.left -= 1;
    }
}

/// Routes told by a peer: a checked view over the data of a Prepare. Bytes after the last field are
/// ignored.
#[derive(Debug, Clone)]
pub struct Update<B> {
    buffer: B,
    head: UpdateHead,
    speaker: (usize, usize),
    routes: Cursor,
    withdrawn: Cursor,
}

/// An update that is being checked, a part at a time: it may hold hundreds of routes, and checking them takes
/// longer than whoever does it may want to wait.
#[derive(Debug, Clone)]
pub struct Unchecked<B> {
    buffer: B,
    head: UpdateHead,
    speaker: (usize, usize),
    routes: Cursor,
    /// The second list, once the first one is checked.
    withdrawn: Option<Cursor>,
    /// How far the list that is being checked is.
    cursor: Cursor,
}

impl<B: AsRef<[u8]> + Clone> Unchecked<B> {
    /// Reads what stands before the routes.
    pub fn new(buffer: B) -> Result<Self, MessageError> {
        let mut reader = Reader::new(buffer.as_ref());
        let head = UpdateHead {
            table_id: TableId(reader.array()?),
            current_epoch: reader.u32()?,
            from_epoch: reader.u32()?,
            to_epoch: reader.u32()?,
            hold_down_ms: reader.u32()?,
        };
        let speaker = address(&mut reader)?.len();
        let speaker = (reader.position() - speaker, reader.position());
        let routes = Cursor::read(&mut reader)?;
        Ok(Self {
            buffer,
            head,
            speaker,
            routes,
            withdrawn: None,
            cursor: routes,
        })
    }

    /// Checks on, until so many bytes are checked or all of it is: then it is an update.
    pub fn check(&mut self, bytes: usize) -> Result<Option<Update<B>>, MessageError> {
        let start = self.cursor.at;
        loop {
            let done = self.cursor.at - start;
            let mut reader = Reader::new(&self.buffer.as_ref()[self.cursor.at..]);
            match (self.cursor.left, self.withdrawn) {
                (0, None) => {
                    let mut withdrawn = Cursor::read(&mut reader)?;
                    withdrawn.at += self.cursor.at;
                    self.withdrawn = Some(withdrawn);
                    self.cursor = withdrawn;
                }
                (0, Some(withdrawn)) => {
                    return Ok(Some(Update {
                        buffer: self.buffer.clone(),
                        head: self.head,
                        speaker: self.speaker,
                        routes: self.routes,
                        withdrawn,
                    }));
                }
                (_, _) if done >= bytes => return Ok(None),
                (_, None) => {
                    read_route(&mut reader)?;
                    self.cursor.pass(&reader);
                }
                (_, Some(_)) => {
                    prefix(&mut reader)?;
                    self.cursor.pass(&reader);
                }
            }
        }
    }
}

impl<B: AsRef<[u8]>> Update<B> {
    /// Checks all of it.
    pub fn parse(buffer: B) -> Result<Self, MessageError>
    where
        B: Clone,
    {
        let whole = Unchecked::new(buffer)?.check(usize::MAX)?;
        Ok(whole.expect("there is no end to how much may be checked"))
    }

    /// What stands before the routes.
    pub fn head(&self) -> &UpdateHead {
        &self.head
    }

    /// Who says that it is speaking.
    pub fn speaker(&self) -> &str {
        let (from, to) = self.speaker;
        std::str::from_utf8(&self.buffer.as_ref()[from..to]).expect("an address is ASCII")
    }

    /// The beginning of the new routes.
    pub fn routes(&self) -> Cursor {
        self.routes
    }

    /// The beginning of the withdrawn prefixes.
    pub fn withdrawn(&self) -> Cursor {
        self.withdrawn
    }

    /// The next new route.
    pub fn next_route(&self, cursor: &mut Cursor) -> Option<Route<'_>> {
        self.next(cursor, read_route)
    }

    /// The next withdrawn prefix.
    pub fn next_withdrawn(&self, cursor: &mut Cursor) -> Option<&str> {
        self.next(cursor, prefix)
    }

    fn next<'a, T>(
        &'a self,
        cursor: &mut Cursor,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, MessageError>,
    ) -> Option<T> {
        if cursor.left == 0 {
            return None;
        }
        let mut reader = Reader::new(&self.buffer.as_ref()[cursor.at..]);
        let value = read(&mut reader).expect("was read before");
        cursor.pass(&reader);
        Some(value)
    }
}

fn read_route<'a>(reader: &mut Reader<'a>) -> Result<Route<'a>, MessageError> {
    let prefix = prefix(reader)?;
    let path = sublist(reader, |reader| address(reader).map(drop))?;
    let auth = reader.array()?;
    let properties = sublist(reader, |reader| {
        reader.take(3)?;
        reader.var_octets()?;
        Ok(())
    })?;
    Ok(Route {
        prefix,
        path,
        auth,
        properties,
    })
}

fn sublist<'a>(
    reader: &mut Reader<'a>,
    mut item: impl FnMut(&mut Reader<'_>) -> Result<(), MessageError>,
) -> Result<List<'a>, MessageError> {
    let count = Cursor::read(reader)?.left;
    let (rest, start) = (reader.rest(), reader.position());
    for _ in 0..count {
        item(reader)?;
    }
    Ok(List {
        count,
        bytes: &rest[..reader.position() - start],
    })
}

fn address<'a>(reader: &mut Reader<'a>) -> Result<&'a str, MessageError> {
    let address = Addr::from_bytes(reader.var_octets()?).map_err(MessageError::Address)?;
    Ok(address.as_str())
}

/// Without the one trailing dot that is accepted.
fn prefix<'a>(reader: &mut Reader<'a>) -> Result<&'a str, MessageError> {
    Prefix::check(reader.var_octets()?).map_err(MessageError::Prefix)
}

/// Puts an update together, as long as there is room.
#[derive(Debug, Default)]
pub struct UpdateBuilder {
    routes: Vec<u8>,
    route_count: u64,
    withdrawn: Vec<u8>,
    withdrawn_count: u64,
}

impl UpdateBuilder {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of the routes so far.
    pub fn bytes_len(&self) -> usize {
        self.routes.len() + self.withdrawn.len()
    }

    /// Whether nothing was put in.
    pub fn is_empty(&self) -> bool {
        self.bytes_len() == 0
    }

    /// Routes that are told.
    pub fn route_count(&self) -> u64 {
        self.route_count
    }

    /// Tells a route. `first` comes before the rest of the path.
    pub fn route(&mut self, first: Option<&Address>, route: &Route<'_>) {
        let out = &mut self.routes;
        oer::put_var_octets(out, route.prefix.as_bytes());
        let count = route.path.count + usize::from(first.is_some());
        oer::put_var_uint(out, count as u64);
        if let Some(first) = first {
            oer::put_var_octets(out, first.as_str().as_bytes());
        }
        out.extend_from_slice(route.path.bytes);
        out.extend_from_slice(&route.auth);
        oer::put_var_uint(out, route.properties.count as u64);
        out.extend_from_slice(route.properties.bytes);
        self.route_count += 1;
    }

    /// Takes a route back.
    pub fn withdraw(&mut self, prefix: &str) {
        oer::put_var_octets(&mut self.withdrawn, prefix.as_bytes());
        self.withdrawn_count += 1;
    }

    /// The data of a Prepare.
    pub fn finish(self, head: &UpdateHead, speaker: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + speaker.len() + self.bytes_len());
        out.extend_from_slice(&head.table_id.0);
        for number in [
            head.current_epoch,
            head.from_epoch,
            head.to_epoch,
            head.hold_down_ms,
        ] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        oer::put_var_octets(&mut out, speaker.as_bytes());
        oer::put_var_uint(&mut out, self.route_count);
        out.extend_from_slice(&self.routes);
        oer::put_var_uint(&mut out, self.withdrawn_count);
        out.extend_from_slice(&self.withdrawn);
        out
    }
}
