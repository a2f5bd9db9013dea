//! The world of a run: what happens next, and to whom.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::{Bytes, BytesMut};
use rialto_btp::session::{Event as SessionEvent, Session};
use rialto_connector::{
    Action, Connector, Durable, Effect, Effects, EngineAsk, Input, LinkFailure, LinkId, Now,
    RequestId,
    command::{Made, PaymentRequest},
};
use rialto_journal::{Faults, SimDisk};
use rialto_ledger::{AccountId, Lsn};
use rialto_packet::{ErrorCode, Prepare, RejectBuilder, Reply};
use rialto_stream::{SenderConfig, Target};

use crate::{
    change::Change,
    channel::{Speaker, speakers},
    check::{Checked, HopKey, Link, Links, Seen, Tally, Witness},
    edge::{EdgeState, ReplyTo},
    engine::{Engine, Settling, engines},
    fault::Weather,
    http::{Exchange, Outcome},
    mutant::Mutant,
    node::{Live, Node, wall},
    plan::{LOCAL, Name, Network, Party},
    rng::Rng,
    topology::Topology,
    wire::{CLIENT, Connection, Heard, Message},
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const S: u64 = 1_000 * MS;

/// After the faults stop: longer than the longest expiry, and than it takes to notice a dead peer.
const QUIET_NS: u64 = 150 * S;
/// After the faults stop: payments that still run, in small packets, are asked to stop.
const STOP_NS: u64 = 60 * S;
/// Life of a probe, beside what the nodes on its way keep of it. Milliseconds.
const PROBE_MS: u64 = 5_000;
/// Scripted neighbours that each of them probes.
const PROBES_EACH: usize = 3;
/// Lines that a failure shows.
const LINES_MAX: usize = 40;

/// What a run is asked for beside its seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The network, where it is not for the seed to draw.
    pub topology: Option<Topology>,
    /// Nodes learn their routes from each other; otherwise their operators set them.
    pub learn: bool,
    /// Print the trace as it goes.
    pub trace: bool,
    /// A fault of the node's own, to be caught.
    pub mutant: Option<Mutant>,
}

/// A run that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Events.
    pub steps: u64,
    /// Of the whole trace: equal traces have equal ones.
    pub trace_hash: u64,
    /// What happened.
    pub tally: Tally,
}

/// A run that did not.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Its seed; none when a fuzzer chose.
    pub seed: Option<u64>,
    /// Its options.
    pub options: Options,
    /// The event at which it was noticed.
    pub step: u64,
    /// What is wrong.
    pub message: String,
    /// The last lines of the trace.
    pub lines: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        let of = self
            .seed
            .map_or("--input FILE".to_owned(), |seed| format!("--seed {seed}"));
        writeln!(f, "{} step {}: {}", &of[2..], self.step, self.message)?;
        write!(f, "again: cargo xtask sim {of} --trace")?;
        match self.options.topology {
            Some(topology) => write!(f, " --topology {topology}"),
            None => Ok(()),
        }?;
        f.write_str(if self.options.learn { " --learn" } else { "" })
    }
}

/// Runs one seed.
///
/// # Errors
/// A [`Failure`], when a node broke an invariant or panicked.
pub fn run(seed: u64, options: &Options) -> Result<Report, Box<Failure>> {
    run_with(Rng::new(seed), Some(seed), options)
}

/// Runs what a fuzzer's bytes decide: each draw takes as few of them as it needs.
///
/// # Errors
/// A [`Failure`], when a node broke an invariant or panicked.
pub fn run_bytes(bytes: &[u8], options: &Options) -> Result<Report, Box<Failure>> {
    run_with(Rng::of_bytes(bytes), None, options)
}

fn run_with(rng: Rng, seed: Option<u64>, options: &Options) -> Result<Report, Box<Failure>> {
    let mut world = World::draw(rng, *options);
    world.guarded(seed, World::run)?;
    Ok(Report {
        steps: world.step,
        trace_hash: world.trace.hash,
        tally: world.witness.tally,
    })
}
/// Seeds within which each mutant must be caught.
pub const MUTANT_SEEDS_MAX: u64 = 2_000;

/// The first seed that catches a mutant, and how it does it; `None` if none does.
pub fn catch(mutant: Mutant) -> Option<(u64, Box<Failure>)> {
    let options = Options {
        mutant: Some(mutant),
        ..Options::default()
    };
    let caught = |seed| Some((seed, run(seed, &options).err()?));
    (1..=MUTANT_SEEDS_MAX).find_map(caught)
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    Arrive {
        connection: u32,
        to: usize,
        epoch: u32,
        message: Message,
    },
    Down {
        connection: u32,
        to: usize,
    },
    SessionTimer {
        connection: u32,
        end: usize,
    },
    Dial {
        dialler: usize,
    },
    Turn {
        node: usize,
        life: u32,
    },
    Timer {
        node: usize,
        life: u32,
    },
    Sync {
        node: usize,
        life: u32,
    },
    Restart {
        node: usize,
    },
    Fault,
    EdgeSend {
        edge: usize,
    },
    EdgeReply {
        to: ReplyTo,
        packet: Vec<u8>,
    },
    HttpRequest {
        exchange: u32,
        packet: Vec<u8>,
    },
    HttpOutcome {
        exchange: u32,
        outcome: Outcome,
    },
    EngineAsked {
        engine: usize,
        /// Of the node, if it hears the answer.
        life: Option<u32>,
        number: u64,
        ask: EngineAsk,
    },
    EngineAnswered {
        node: usize,
        life: u32,
        input: Input,
    },
    EngineCalls {
        engine: usize,
        call: usize,
    },
    EngineMood {
        engine: usize,
    },
    Settle,
    Speak {
        edge: usize,
    },
    Change,
    Pay,
    Heal,
    Stop,
    Probe {
        number: usize,
    },
    End,
}

/// What an operator asks of the core.
type Command = dyn FnOnce(&mut Connector, Now, &mut Effects);

/// One piece of a step.
pub(crate) enum Work {
    Input(Input),
    Command(Box<Command>),
    Change(Change),
    Settling(Settling),
}

/// One compact line per event.
struct Trace {
    hash: u64,
    lines: VecDeque<String>,
    print: bool,
}

/// Everything.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now_ns: u64,
    step: u64,
    pub(crate) options: Options,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    pub(crate) network: Network,
    pub(crate) nodes: Vec<Node>,
    pub(crate) edges: Vec<EdgeState>,
    pub(crate) connections: BTreeMap<u32, Connection>,
    last_connection: u32,
    /// Pairs of nodes between which nothing gets through.
    severed: BTreeSet<(usize, usize)>,
    /// All requests by HTTP.
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) engines: Vec<Engine>,
    /// By edge.
    pub(crate) speakers: Vec<Option<Speaker>>,
    /// What engines were asked.
    pub(crate) asks: u64,
    /// Nodes, and keys that they have told.
    pub(crate) tellings: BTreeSet<(usize, String)>,
    pub(crate) witness: Witness,
    trace: Trace,
    pub(crate) weather: Weather,
    pub(crate) is_healed: bool,
    is_over: bool,
    /// A story decides what happens, and asks what its neighbours heard.
    pub(crate) is_scripted: bool,
    pub(crate) heard: Vec<String>,
    payments: u64,
}

macro_rules! note {
    ($world:expr, $($text:tt)*) => { $world.note(format_args!($($text)*)) };
}
pub(crate) use note;

impl World {
    /// What went wrong, if anything does, as a failure that says how to see it again.
    pub(crate) fn guarded<T>(
        &mut self,
        seed: Option<u64>,
        run: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<T, Box<Failure>> {
        let message = match catch_unwind(AssertUnwindSafe(|| run(self))) {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(message)) => message,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text =
                    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
                format!("panic: {}", text.unwrap_or_default())
            }
        };
        Err(Box::new(Failure {
            seed,
            options: self.options,
            step: self.step,
            message,
            lines: std::mem::take(&mut self.trace.lines).into(),
        }))
    }

    /// Nothing goes wrong by itself, and nothing is sent but what nodes tell each other.
    pub(crate) fn calm(seed: u64, options: Options) -> Self {
        let mut world = Self::draw(Rng::new(seed), options);
        (world.weather, world.is_scripted) = (Weather::CALM, true);
        world
    }

    fn draw(mut rng: Rng, options: Options) -> Self {
        let topology = options.topology;
        let topology = topology.unwrap_or_else(|| Topology::draw(&mut rng));
        let network = Network::draw(&mut rng, topology, options.learn);
        let nodes = Self::draw_nodes(&mut rng, &network);
        let weather = Weather::draw(&mut rng);
        Self::new(rng, network, nodes, weather, options)
    }

    /// A world in which only a story makes things happen.
    pub(crate) fn scripted(network: Network) -> Self {
        let mut rng = Rng::new(0);
        let nodes = Self::draw_nodes(&mut rng, &network);
        Self {
            is_scripted: true,
            ..Self::new(rng, network, nodes, Weather::CALM, Options::default())
        }
    }

    fn draw_nodes(rng: &mut Rng, network: &Network) -> Vec<Node> {
        let node = |rng: &mut Rng| Node {
            disk: SimDisk::new(),
            live: None,
            death: None,
            life: 0,
            skew_ms: 0,
            slow_until_ns: 0,
            stream_secret: rng.bytes(),
            segment_bytes: rng.pick(&[4_096, 65_536, 64 << 20]),
            is_changed: false,
        };
        network.nodes.iter().map(|_| node(rng)).collect()
    }

    fn new(
        rng: Rng,
        network: Network,
        nodes: Vec<Node>,
        weather: Weather,
        options: Options,
    ) -> Self {
        let trace = Trace {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: VecDeque::new(),
            print: options.trace,
        };
        Self {
            rng,
            now_ns: S,
            step: 0,
            options,
            queue: BTreeMap::new(),
            queued: 0,
            nodes,
            edges: network.edges.iter().map(|_| EdgeState::default()).collect(),
            connections: BTreeMap::new(),
            last_connection: 0,
            severed: BTreeSet::new(),
            exchanges: Vec::new(),
            engines: engines(&network),
            speakers: speakers(&network),
            asks: 0,
            tellings: BTreeSet::new(),
            witness: Witness::new(&network.nodes),
            network,
            trace,
            weather,
            is_healed: false,
            is_over: false,
            is_scripted: false,
            heard: Vec::new(),
            payments: 0,
        }
    }

    pub(crate) fn name(&self, node: usize) -> Name {
        self.network.nodes[node].name.clone()
    }

    pub(crate) fn is_mutant(&self, mutant: Mutant) -> bool {
        self.options.mutant == Some(mutant)
    }

    /// Writes a line of the trace.
    pub(crate) fn note(&mut self, text: fmt::Arguments<'_>) {
        let line = format!("{:>12} {text}", self.now_ns / 1_000);
        // FNV-1a: the same on every machine.
        for byte in line.bytes() {
            self.trace.hash = (self.trace.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        if self.trace.print {
            println!("{line}");
        }
        if self.trace.lines.len() == LINES_MAX {
            self.trace.lines.pop_front();
        }
        self.trace.lines.push_back(line);
    }

    pub(crate) fn plan_at(&mut self, at_ns: u64, event: Event) {
        self.queued += 1;
        self.queue
            .insert((at_ns.max(self.now_ns), self.queued), event);
    }

    pub(crate) fn plan_in(&mut self, delay_ns: u64, event: Event) {
        self.plan_at(self.now_ns + delay_ns, event);
    }

    /// Opens all nodes and connections.
    pub(crate) fn start(&mut self) -> Checked {
        for node in 0..self.nodes.len() {
            self.open(node)?;
        }
        for dialler in 0..self.network.diallers.len() {
            self.plan_in(MS, Event::Dial { dialler });
        }
        self.connect_edges();
        Ok(())
    }

    /// The same, each node at a time of its own within `span_ns`.
    pub(crate) fn start_apart(&mut self, span_ns: u64) {
        for node in 0..self.nodes.len() {
            let at_ns = self.rng.below(span_ns);
            self.plan_in(at_ns, Event::Restart { node });
            for dialler in 0..self.network.diallers.len() {
                if self.network.diallers[dialler].client == Party::Node(node) {
                    self.plan_in(at_ns + MS, Event::Dial { dialler });
                }
            }
        }
        self.connect_edges();
    }

    fn connect_edges(&mut self) {
        for edge in 0..self.edges.len() {
            if self.network.edges[edge].is_http {
                self.last_connection += 1;
                self.edges[edge].connection = Some(self.last_connection);
            }
        }
    }

    /// Lets happen what happens within that time.
    pub(crate) fn run_for(&mut self, length_ns: u64) -> Checked {
        let end_ns = self.now_ns + length_ns;
        while let Some(next) = self
            .queue
            .first_entry()
            .filter(|next| next.key().0 <= end_ns)
        {
            let ((at_ns, _), event) = next.remove_entry();
            self.now_ns = at_ns;
            self.step += 1;
            self.happen(event)?;
        }
        self.now_ns = end_ns;
        Ok(())
    }

    fn run(&mut self) -> Checked {
        self.start()?;
        for edge in 0..self.edges.len() {
            self.plan_in(100 * MS, Event::EdgeSend { edge });
            if self.speakers[edge].is_some() {
                self.plan_in(500 * MS, Event::Speak { edge });
            }
        }
        self.plan_in(200 * MS, Event::Pay);
        self.plan_in(300 * MS, Event::Fault);
        self.plan_in(350 * MS, Event::Settle);
        if self.weather.changes {
            self.plan_in(400 * MS, Event::Change);
        }
        self.plan_in(self.weather.load_ns, Event::Heal);
        while !self.is_over {
            let ((at_ns, _), event) = self.queue.pop_first().ok_or("nothing happens any more")?;
            self.now_ns = at_ns;
            self.step += 1;
            self.happen(event)?;
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Checked {
        match event {
            Event::Arrive {
                connection,
                to,
                epoch,
                message,
            } => self.arrive(connection, to, epoch, message),
            Event::Down { connection, to } => {
                self.close(connection, to);
                Ok(())
            }
            Event::SessionTimer { connection, end } => {
                self.session_timer(connection, end);
                Ok(())
            }
            Event::Dial { dialler } => {
                self.dial(dialler);
                Ok(())
            }
            Event::Turn { node, life } => {
                let Some(live) = self.live(node, life) else {
                    return Ok(());
                };
                live.has_turn = false;
                let inputs = std::mem::take(&mut live.inbox);
                self.step(node, inputs.into_iter().map(Work::Input).collect())
            }
            Event::Timer { node, life } => self.timer(node, life),
            Event::Sync { node, life } => self.sync(node, life),
            Event::Restart { node } => self.open(node),
            Event::Fault => self.fault(),
            Event::EdgeSend { edge } => self.edge_send(edge),
            Event::EdgeReply { to, packet } => {
                self.edge_reply(to, &packet);
                Ok(())
            }
            Event::HttpRequest { exchange, packet } => {
                self.http_request(exchange, &packet);
                Ok(())
            }
            Event::HttpOutcome { exchange, outcome } => self.http_outcome(exchange, outcome),
            Event::EngineAsked {
                engine,
                life,
                number,
                ask,
            } => self.engine_asked(engine, life, number, &ask),
            Event::EngineAnswered { node, life, input } => {
                if self.nodes[node].life == life {
                    self.push(node, input);
                }
                Ok(())
            }
            Event::EngineCalls { engine, call } => self.engine_calls(engine, call),
            Event::EngineMood { engine } => {
                self.engine_mood(engine);
                Ok(())
            }
            Event::Settle => self.settle_next(),
            Event::Speak { edge } => self.speak(edge),
            Event::Change => self.change(),
            Event::Pay => self.pay(),
            Event::Heal => self.heal(),
            Event::Stop => self.stop(),
            Event::Probe { number } => self.probe(number),
            Event::End => self.end(),
        }
    }

    /// The node in the life that something was planned for.
    fn live(&mut self, node: usize, life: u32) -> Option<&mut Live> {
        let node = &mut self.nodes[node];
        if node.life != life {
            return None;
        }
        node.live.as_deref_mut()
    }

    // --- connections ---

    fn dial(&mut self, dialler: usize) {
        let plan = self.network.diallers[dialler].clone();
        let client_is_dead =
            matches!(plan.client, Party::Node(node) if self.nodes[node].live.is_none());
        let mut connections = self.connections.values();
        let is_up =
            connections.any(|of| of.dialler == dialler && of.is_wanted && of.ends[CLIENT].is_open);
        // A dead client dials when it is up again.
        if client_is_dead || is_up {
            return;
        }
        let server = Party::Node(plan.server);
        if self.nodes[plan.server].live.is_none() || self.is_severed(plan.client, server) {
            let delay_ns = self.rng.between(50, 500) * MS;
            self.plan_in(delay_ns, Event::Dial { dialler });
            return;
        }
        self.last_connection += 1;
        let connection = self.last_connection;
        let parties = [plan.client, server];
        let (opened, hello) = Connection::new(
            self.now_ns,
            wall(self.now_ns),
            dialler,
            &plan.username,
            parties,
        );
        for (end, of) in opened.ends.iter().enumerate() {
            let at_ns = of
                .session
                .poll_timeout()
                .expect("a new session waits for something");
            self.plan_at(at_ns, Event::SessionTimer { connection, end });
        }
        self.connections.insert(connection, opened);
        note!(
            self,
            "{} dials {}: connection {connection}",
            plan.username,
            self.name(plan.server)
        );
        self.send(connection, CLIENT, Message::Frame(hello));
    }

    /// Cuts what two nodes are linked by, and keeps it cut.
    pub(crate) fn sever(&mut self, a: usize, b: usize) {
        self.severed.insert((a.min(b), a.max(b)));
        // By HTTP they have no connection.
        let _ = self.cut_between(a, b);
    }

    pub(crate) fn mend_all(&mut self) {
        self.severed.clear();
    }

    pub(crate) fn is_severed(&self, one: Party, other: Party) -> bool {
        match (one, other) {
            (Party::Node(a), Party::Node(b)) => self.severed.contains(&(a.min(b), a.max(b))),
            (Party::Edge(_), _) | (_, Party::Edge(_)) => false,
        }
    }

    /// How long a message is on its way.
    pub(crate) fn latency_ns(&mut self) -> u64 {
        match self.rng.below(1_000) {
            0..2 if self.weather.is_slow && !self.is_healed => self.rng.between(1_000, 40_000) * MS,
            2..20 if self.weather.is_slow && !self.is_healed => self.rng.between(100, 3_000) * MS,
            _ => self.rng.between(200, 20_000) * 1_000,
        }
    }

    pub(crate) fn send(&mut self, connection: u32, from: usize, message: Message) {
        let delay_ns = self.latency_ns();
        let now_ns = self.now_ns;
        let Some(of) = self.connections.get_mut(&connection) else {
            return;
        };
        if !of.ends[from].is_open || of.is_broken {
            return;
        }
        let to = 1 - from;
        let end = &mut of.ends[to];
        end.last_arrival_ns = (now_ns + delay_ns).max(end.last_arrival_ns + 1);
        let (at_ns, epoch) = (end.last_arrival_ns, end.epoch);
        self.plan_at(
            at_ns,
            Event::Arrive {
                connection,
                to,
                epoch,
                message,
            },
        );
    }

    fn arrive(&mut self, connection: u32, to: usize, epoch: u32, message: Message) -> Checked {
        let now_ns = self.now_ns;
        let Some(of) = self.connections.get_mut(&connection) else {
            return Ok(());
        };
        let end = &mut of.ends[to];
        if !end.is_open || end.epoch != epoch {
            return Ok(());
        }
        let frame = match message {
            Message::Frame(frame) => frame,
            Message::Ping => {
                end.session.handle_ping_or_pong(now_ns);
                self.send(connection, to, Message::Pong);
                return Ok(());
            }
            Message::Pong => {
                end.session.handle_ping_or_pong(now_ns);
                return Ok(());
            }
        };
        let mut answer = Vec::new();
        let heard = Heard::of(
            end.session.handle_frame(now_ns, &frame, &mut answer),
            &frame,
        );
        let (party, dialler) = (end.party, of.dialler);
        let mut closes = false;
        match heard {
            Heard::Nothing => {}
            Heard::Close => closes = true,
            Heard::Authenticate(name) => {
                let Party::Node(node) = party else {
                    unreachable!("edges only dial")
                };
                let core = self.nodes[node].live.as_deref().map(|live| &live.core);
                let account = core
                    .zip(name)
                    .and_then(|(core, name)| core.ledger().account_by_name(&name));
                let account = account.map(|account| account.id);
                let session = &mut self.connection(connection).ends[to].session;
                let decided = match account {
                    Some(_) => session.accept(now_ns, &mut answer),
                    None => session.refuse(now_ns, &mut answer).map(drop),
                };
                match (account, decided) {
                    (Some(account), Ok(())) => self.establish(node, account, connection, to),
                    _ => closes = true,
                }
            }
            Heard::Established => match party {
                Party::Node(node) => {
                    let account = &self.network.diallers[dialler].account;
                    let account = self.witness.plan(node).id(account);
                    self.establish(node, account, connection, to);
                }
                Party::Edge(edge) => {
                    // An older one may be accepted later.
                    let newest = &mut self.edges[edge].connection;
                    *newest = (*newest).max(Some(connection));
                }
            },
            Heard::Prepare(request, packet) => match party {
                Party::Node(node) => {
                    self.hear(node, connection, to, |link, account| Input::Prepare {
                        account,
                        link,
                        request: RequestId(request.into()),
                        packet: BytesMut::from(&packet[..]),
                    })
                }
                Party::Edge(edge) => {
                    let to = ReplyTo::Session {
                        connection,
                        end: to,
                        request,
                    };
                    self.edge_prepare(edge, to, &packet);
                }
            },
            Heard::Reply(request, packet) => match party {
                Party::Node(node) => self.hear(node, connection, to, |link, _| Input::Reply {
                    link,
                    request: RequestId(request.into()),
                    packet: Bytes::from(packet),
                }),
                Party::Edge(edge) => {
                    let key = Self::key(connection, to, request.into());
                    self.edge_hears(edge, key, &packet)?;
                }
            },
            Heard::Failed(request) => match party {
                Party::Node(node) => self.hear(node, connection, to, |link, _| Input::Failed {
                    link,
                    request: RequestId(request.into()),
                    failure: LinkFailure::BadReply,
                }),
                Party::Edge(_) => {}
            },
        }
        if !answer.is_empty() {
            self.send(connection, to, Message::Frame(answer));
        }
        if closes {
            self.close(connection, to);
        }
        Ok(())
    }

    pub(crate) fn key(connection: u32, end: usize, request: u64) -> HopKey {
        HopKey {
            connection,
            end,
            request,
        }
    }

    fn connection(&mut self, connection: u32) -> &mut Connection {
        self.connections
            .get_mut(&connection)
            .expect("it was looked up")
    }

    /// Gives a node an input that came on an authenticated connection.
    fn hear(
        &mut self,
        node: usize,
        connection: u32,
        end: usize,
        input: impl FnOnce(LinkId, AccountId) -> Input,
    ) {
        let Some(serial) = self.connection(connection).ends[end].serial else {
            return;
        };
        let live = self.nodes[node].live.as_deref();
        let Some(account) = live
            .and_then(|live| live.links.sessions.get(&serial))
            .map(|link| link.account)
        else {
            return;
        };
        self.push(node, input(LinkId::Session { worker: 0, serial }, account));
    }

    /// Puts an input into the inbox of a node, which looks into it soon.
    pub(crate) fn push(&mut self, node: usize, input: Input) {
        let delay_ns = self.rng.below(300_000);
        let life = self.nodes[node].life;
        let Some(live) = self.nodes[node].live.as_deref_mut() else {
            return;
        };
        live.inbox.push(input);
        if !live.has_turn {
            live.has_turn = true;
            self.plan_in(delay_ns, Event::Turn { node, life });
        }
    }

    fn establish(&mut self, node: usize, account: AccountId, connection: u32, end: usize) {
        let other = self.connection(connection).ends[1 - end].party;
        let Some(live) = self.nodes[node].live.as_deref_mut() else {
            return;
        };
        let serial = u32::try_from(live.links.sessions.len()).expect("few connections") + 1;
        live.links.sessions.insert(
            serial,
            Link {
                connection,
                end,
                account,
                other,
            },
        );
        self.connection(connection).ends[end].serial = Some(serial);
        let link = LinkId::Session { worker: 0, serial };
        self.push(node, Input::LinkUp { link, account });
    }

    /// One end is over; the other will hear of it.
    pub(crate) fn close(&mut self, connection: u32, end: usize) {
        let Some(of) = self.connections.get_mut(&connection) else {
            return;
        };
        let this = &mut of.ends[end];
        if !this.is_open {
            return;
        }
        this.is_open = false;
        this.session.handle_closed();
        let (party, serial, is_wanted, dialler) =
            (this.party, this.serial, of.is_wanted, of.dialler);
        let other = &mut of.ends[1 - end];
        let down_ns = other.last_arrival_ns + 1;
        note!(self, "connection {connection} is closed at {party:?}");
        if let (Party::Node(node), Some(serial)) = (party, serial) {
            self.push(
                node,
                Input::LinkDown {
                    link: LinkId::Session { worker: 0, serial },
                },
            );
        }
        if end == CLIENT && is_wanted {
            let delay_ns = self.rng.between(50, 1_000) * MS;
            self.plan_in(delay_ns, Event::Dial { dialler });
        }
        let delay_ns = self.rng.between(1, 50) * MS;
        self.plan_at(
            down_ns.max(self.now_ns + delay_ns),
            Event::Down {
                connection,
                to: 1 - end,
            },
        );
    }

    fn session_timer(&mut self, connection: u32, end: usize) {
        let now_ns = self.now_ns;
        let Some(of) = self.connections.get_mut(&connection) else {
            return;
        };
        let this = &mut of.ends[end];
        if !this.is_open {
            return;
        }
        match this.session.handle_timeout(now_ns) {
            SessionEvent::Ping => self.send(connection, end, Message::Ping),
            SessionEvent::Close(_) => {
                self.close(connection, end);
                return;
            }
            SessionEvent::Nothing
            | SessionEvent::Authenticate { .. }
            | SessionEvent::Deferred
            | SessionEvent::Established
            | SessionEvent::Prepare { .. }
            | SessionEvent::Reply { .. }
            | SessionEvent::PeerError { .. }
            | SessionEvent::BadReply { .. } => {}
        }
        if let Some(at_ns) = self.connection(connection).ends[end].session.poll_timeout() {
            self.plan_at(at_ns, Event::SessionTimer { connection, end });
        }
    }

    // --- nodes ---

    /// Starts a node, for the first time or again.
    pub(crate) fn open(&mut self, index: usize) -> Checked {
        if self.nodes[index].live.is_some() {
            return Ok(());
        }
        let mutant = self.options.mutant;
        let plan = self.witness.plan(index).clone();
        let node = &mut self.nodes[index];
        node.life += 1;
        let settings = plan.settings(mutant);
        let mut core = Connector::new(settings, node.stream_secret, self.rng.fork());
        if let Some(mutant) = mutant.and_then(Mutant::of_ledger) {
            core.set_mutant(mutant);
        }
        if let Some(mutant) = mutant.and_then(Mutant::of_channel) {
            core.set_channel_mutant(mutant);
        }
        let node = &self.nodes[index];
        let (mut live, last) = Live::open(
            node,
            self.now_ns,
            core,
            &mut self.rng,
            &self.witness,
            index,
            mutant,
        )?;
        note!(self, "{} is up with {last} records", self.name(index));
        let node = &mut self.nodes[index];
        let is_new = node.death.is_none();
        if let Some(death) = node.death.take() {
            self.witness
                .recovered(index, death, last, live.core.ledger())?;
        }
        for (number, account) in plan.accounts.iter().enumerate() {
            let Some(other) = account.http else { continue };
            // A connection that stands for this life's requests.
            self.last_connection += 1;
            let connection = self.last_connection;
            let account = AccountId(u32::try_from(number + 1).expect("few accounts"));
            live.links.http.insert(
                account,
                Link {
                    connection,
                    end: CLIENT,
                    account,
                    other,
                },
            );
        }
        self.nodes[index].live = Some(Box::new(live));
        self.step(
            index,
            vec![Work::Command(Box::new(|core, _, out| core.recovered(out)))],
        )?;
        if is_new {
            let set_up = move |core: &mut Connector, _: Now, out: &mut Effects| {
                for account in &plan.accounts {
                    core.account_create(account.settings(mutant), out)
                        .expect("the plan is good");
                }
                for (prefix, account) in &plan.routes {
                    let prefix = prefix.parse().expect("a prefix");
                    core.route_put(prefix, &[(account.to_string(), 1)], out)
                        .expect("the plan is good");
                }
                Change::Rate(plan.rate_percent).apply(core, mutant, out);
            };
            self.step(index, vec![Work::Command(Box::new(set_up))])?;
        }
        if let Some(live) = self.nodes[index].live.as_deref_mut() {
            let synced = live.journal.sync().map_err(|error| error.to_string())?;
            for action in live.gate.synced(Lsn(synced.0)) {
                self.perform(index, action)?;
            }
        }
        for dialler in 0..self.network.diallers.len() {
            let client = self.network.diallers[dialler].client;
            if client == Party::Node(index) && !is_new {
                self.plan_in(10 * MS, Event::Dial { dialler });
            }
        }
        Ok(())
    }

    /// One turn, in the order of the real shell: decide, append, write, then let out what may leave.
    pub(crate) fn step(&mut self, index: usize, mut works: Vec<Work>) -> Checked {
        let Some(mut live) = self.nodes[index].live.take() else {
            return Ok(());
        };
        let (now_ns, mutant) = (self.now_ns, self.options.mutant);
        let skew_ms = self.nodes[index].skew_ms;
        let now = live.now(now_ns, skew_ms, mutant);
        let synced = match mutant {
            Some(Mutant::WrittenCountsAsSynced) => live.journal.written().0,
            _ => live.journal.synced().0,
        };
        works.insert(0, Work::Input(Input::Synced(Lsn(synced))));
        if live.failed {
            live.core.journal_failed();
        }
        let mut effects = Vec::new();
        for work in works {
            let seen = seen(&work, &live.links);
            let mut credited = None;
            match work {
                Work::Input(input) => {
                    if let Some((now, input)) =
                        mutate_input(now, input, &seen, &self.witness, mutant)
                    {
                        live.core.handle(now, input, &mut live.out);
                    }
                }
                Work::Command(command) => command(&mut live.core, now, &mut live.out),
                Work::Change(change) => change.apply(&mut live.core, mutant, &mut live.out),
                Work::Settling(settling) => {
                    let decided = settling.apply(&mut live.core, now, &mut live.out);
                    if let (Settling::Credit(engine, number, call), Some(decided)) =
                        (settling, decided)
                    {
                        let before = self.witness.credit(index, &call.key);
                        credited = Some((engine, number, call, before, decided));
                    }
                }
            }
            let records: Vec<Vec<u8>> = live.out.records().map(<[u8]>::to_vec).collect();
            for record in &records {
                // A failed journal takes no more; what was accepted is still decided and answered.
                match live.journal.append(record) {
                    Ok(_) => {}
                    Err(_) => live.failed = true,
                }
            }
            let mut emitted: Vec<Effect> = live.out.drain().collect();
            mutate_effects(&mut emitted, mutant, self.network.nodes[index].window_ms);
            self.note_work(index, &seen, &records, &emitted);
            let at = live.moment(now_ns, skew_ms);
            self.witness
                .observe(index, at, &seen, &records, &emitted, &live.links)?;
            if let Some((engine, number, call, before, decided)) = credited {
                self.witness
                    .credit_decided(index, &call, before.as_ref(), &decided)?;
                let lsn = decided.as_ref().map_or(Lsn(0), |(_, lsn)| *lsn);
                let answer = decided.map(|(credited, _)| credited);
                live.answers.push((lsn, engine, number, answer));
            }
            effects.extend(emitted);
        }
        if live.burns() {
            self.nodes[index].live = Some(live);
            return self.die(index);
        }
        let writes_late = mutant == Some(Mutant::WriteAfterSend);
        let mut dies = false;
        if !writes_late {
            dies = self.write(index, &mut live);
        }
        dies |= live.burns();
        self.nodes[index].live = Some(live);
        if dies {
            return self.die(index);
        }
        for effect in effects {
            let Some(live) = self.nodes[index].live.as_deref_mut() else {
                return Ok(());
            };
            let waits = match effect.after {
                Durable::Nothing | Durable::Written(_) => false,
                Durable::Synced { .. } => mutant != Some(Mutant::GateDropped),
                Durable::OnDisk(_) => !mutant.is_some_and(|of| of.lets_out(&effect.action)),
            };
            let action = match waits {
                true => live.gate.pass(effect, Lsn(synced), now.mono_ns),
                false => Some(effect.action),
            };
            if let Some(action) = action {
                self.perform(index, action)?;
            }
            if self.nodes[index]
                .live
                .as_deref_mut()
                .is_some_and(Live::burns)
            {
                return self.die(index);
            }
        }
        self.acknowledge(index);
        if writes_late && let Some(mut live) = self.nodes[index].live.take() {
            let dies = self.write(index, &mut live);
            self.nodes[index].live = Some(live);
            if dies {
                return self.die(index);
            }
        }
        self.after_step(index)
    }

    /// Writes what was appended; says whether the process died of it.
    fn write(&mut self, index: usize, live: &mut Live) -> bool {
        let dies = live.fuse.is_some_and(|fuse| fuse.in_write);
        let disk = &self.nodes[index].disk;
        if dies {
            disk.set_faults(Faults {
                operations_left: Some(0),
                ..Faults::default()
            });
        }
        let written = live.journal.write();
        live.failed |= written.is_err() && !dies;
        dies && written.is_err()
    }

    /// Engines hear what came of their calls once it is on disk.
    fn acknowledge(&mut self, index: usize) {
        let waits = !self.is_mutant(Mutant::CreditBeforeRecord);
        let Some(live) = self.nodes[index].live.as_deref_mut() else {
            return;
        };
        let synced = Lsn(live.journal.synced().0);
        let answers = std::mem::take(&mut live.answers);
        let (waiting, ready) = answers
            .into_iter()
            .partition(|(lsn, ..)| waits && *lsn > synced);
        live.answers = waiting;
        for (_, engine, number, answer) in ready {
            self.engine_acknowledged(index, engine, number, answer);
        }
    }

    fn after_step(&mut self, index: usize) -> Checked {
        let (mutant, skew_ms) = (self.options.mutant, self.nodes[index].skew_ms);
        let now_ns = self.now_ns;
        // A busy node gets to its timers late, and to what came on its sockets before.
        let late_ns = match self.rng.percent(20) {
            true => self.rng.below(50) * MS,
            false => 1_000,
        };
        let node = &mut self.nodes[index];
        let (life, slow_until_ns) = (node.life, node.slow_until_ns);
        let Some(live) = node.live.as_deref_mut() else {
            return Ok(());
        };
        let mono_ns = live.now(now_ns, skew_ms, mutant).mono_ns;
        let due = live
            .core
            .poll_timeout()
            .into_iter()
            .chain(live.gate.next_overdue())
            .min();
        let timer_at_ns = due.map(|due_ns| now_ns + due_ns.saturating_sub(mono_ns) + late_ns);
        let timer_at_ns =
            timer_at_ns.filter(|at_ns| live.timer_at_ns.is_none_or(|set_ns| *at_ns < set_ns));
        if timer_at_ns.is_some() {
            live.timer_at_ns = timer_at_ns;
        }
        let syncs =
            !live.has_sync && !live.failed && live.journal.written() > live.journal.synced();
        live.has_sync |= syncs;
        self.witness
            .check(index, &live.core, live.journal.synced().0)?;
        if let Some(at_ns) = timer_at_ns {
            self.plan_at(at_ns, Event::Timer { node: index, life });
        }
        if syncs {
            let delay_ns = match now_ns < slow_until_ns {
                true if self.is_scripted => u64::MAX / 2,
                true => self.rng.between(100, 4_000) * MS,
                false => self.rng.between(1, 10) * MS,
            };
            self.plan_in(delay_ns, Event::Sync { node: index, life });
        }
        Ok(())
    }

    fn timer(&mut self, node: usize, life: u32) -> Checked {
        let (now_ns, mutant, skew_ms) =
            (self.now_ns, self.options.mutant, self.nodes[node].skew_ms);
        let Some(live) = self.live(node, life) else {
            return Ok(());
        };
        if live.timer_at_ns != Some(now_ns) {
            return Ok(());
        }
        live.timer_at_ns = None;
        let mono_ns = live.now(now_ns, skew_ms, mutant).mono_ns;
        let overdue = live.gate.overdue(mono_ns);
        for action in overdue {
            self.perform(node, action)?;
        }
        if self.is_mutant(Mutant::LateFulfillPaid) {
            return Ok(());
        }
        self.step(node, vec![Work::Input(Input::Timeout)])
    }

    fn sync(&mut self, node: usize, life: u32) -> Checked {
        let Some(live) = self.live(node, life) else {
            return Ok(());
        };
        live.has_sync = false;
        match live.journal.sync() {
            Err(error) => {
                live.failed = true;
                note!(self, "{} cannot sync: {error}", self.name(node));
            }
            Ok(synced) => {
                let ready = live.gate.synced(Lsn(synced.0));
                for action in ready {
                    self.perform(node, action)?;
                    if self.live(node, life).is_some_and(Live::burns) {
                        return self.die(node);
                    }
                }
                self.acknowledge(node);
            }
        }
        self.after_step(node)
    }

    /// Does what the core wants.
    fn perform(&mut self, node: usize, action: Action) -> Checked {
        match action {
            Action::Forward {
                link,
                request,
                packet,
                ..
            } => self.forward(node, link, request, &packet),
            Action::Answer {
                link,
                request,
                packet,
                paid,
            } => {
                let packet = mutate_answer(packet, self.options.mutant);
                let Some((key, has_left)) = self.answer(node, link, request, &packet) else {
                    return complain_link(link);
                };
                if !has_left {
                    // As the links do, when they find nobody to send a Fulfill to.
                    paid.into_iter()
                        .for_each(|paid| self.push(node, Input::Undelivered(paid)));
                    return Ok(());
                }
                for _ in 0..=u32::from(self.is_mutant(Mutant::AnsweredTwice)) {
                    self.witness.released(self.now_ns, key, &packet)?;
                }
                Ok(())
            }
            Action::Disconnect { link } => {
                let Some(to) = self.asking(node, link) else {
                    return complain_link(link);
                };
                self.close(to.connection, to.end);
                Ok(())
            }
            Action::Engine { account, ask, .. } => self.engine_ask(node, account, ask),
            Action::Report(_) => Ok(()),
        }
    }

    fn asking(&self, node: usize, link: LinkId) -> Option<Link> {
        self.nodes[node].live.as_deref()?.links.asking(link)
    }

    fn forward(&mut self, node: usize, link: LinkId, request: RequestId, packet: &[u8]) -> Checked {
        let Some(to) = self.asking(node, link) else {
            return complain_link(link);
        };
        if let LinkId::Http(account) = link {
            let key = to.asked(request.0);
            self.http_ask(Party::Node(node), account, to.other, key, packet);
            return Ok(());
        }
        let request_id = u32::try_from(request.0)
            .map_err(|_| format!("request {} does not fit BTP", request.0))?;
        let mut frame = Vec::new();
        let session = self.session(to);
        let sent = session.map(|session| session.send_prepare(request_id, packet, &mut frame));
        if sent.is_none_or(|sent| sent.is_err()) {
            let failure = LinkFailure::Closed;
            self.push(
                node,
                Input::Failed {
                    link,
                    request,
                    failure,
                },
            );
            return Ok(());
        }
        self.send(to.connection, to.end, Message::Frame(frame));
        Ok(())
    }

    /// Says which request was answered, and whether somebody was there to send it to. `None`: there
    /// never was such a request.
    fn answer(
        &mut self,
        node: usize,
        link: LinkId,
        request: RequestId,
        packet: &[u8],
    ) -> Option<(HopKey, bool)> {
        let links = &self.nodes[node].live.as_deref()?.links;
        let key = links.got(link, request)?;
        let Some(to) = links.asking(link) else {
            self.http_answer(u32::try_from(request.0).ok()?, packet);
            return Some((key, true));
        };
        let mut frame = Vec::new();
        let request = u32::try_from(request.0).ok()?;
        let session = self.session(to);
        let sent = session.map(|session| session.send_reply(request, packet, &mut frame));
        let has_left = sent.is_some_and(|sent| sent.is_ok());
        if has_left {
            self.send(to.connection, to.end, Message::Frame(frame));
        }
        Some((key, has_left))
    }

    /// The node's end of a connection that is open.
    fn session(&self, link: Link) -> Option<&Session> {
        let end = &self.connections.get(&link.connection)?.ends[link.end];
        end.is_open.then_some(&end.session)
    }

    /// The death that the fuse is for.
    fn die(&mut self, node: usize) -> Checked {
        let live = self.nodes[node].live.as_deref();
        let fuse = live.and_then(|live| live.fuse);
        self.crash(node, fuse.is_some_and(|fuse| fuse.power_cut));
        Ok(())
    }

    fn note_work(&mut self, node: usize, seen: &Seen, records: &[Vec<u8>], effects: &[Effect]) {
        if matches!(seen, Seen::Other) && records.is_empty() && effects.is_empty() {
            return;
        }
        let input = match seen {
            Seen::Prepare { key, packet, .. } => {
                let amount = Prepare::parse(&packet[..]).map_or(0, |packet| packet.amount());
                format!("prepare {}#{} {amount}", key.connection, key.request)
            }
            Seen::Reply { key, packet, .. } => {
                let is_fulfill = matches!(Reply::parse(&packet[..]), Ok(Reply::Fulfill(_)));
                let word = if is_fulfill { "fulfill" } else { "reject" };
                format!("{word} {}#{}", key.connection, key.request)
            }
            Seen::Failed { key } => format!("failed {}#{}", key.connection, key.request),
            Seen::Timeout => "timeout".to_owned(),
            Seen::Credit(call) => format!("credit {} {}", call.key, call.quantity),
            Seen::Change(_) | Seen::Operator | Seen::Other => "other".to_owned(),
        };
        let mut does = String::new();
        for effect in effects {
            match &effect.action {
                Action::Forward { request, link, .. } => {
                    does += &format!(" forward {link:?}#{}", request.0)
                }
                Action::Answer {
                    request, packet, ..
                } => {
                    let is_fulfill = matches!(Reply::parse(&packet[..]), Ok(Reply::Fulfill(_)));
                    let word = if is_fulfill { "fulfill" } else { "reject" };
                    does += &format!(" {word} #{}", request.0);
                }
                Action::Disconnect { link } => does += &format!(" disconnect {link:?}"),
                Action::Engine { ask, .. } => does += &format!(" {ask:?}"),
                Action::Report(event) => does += &format!(" {event:?}"),
            }
        }
        note!(
            self,
            "{} {input} ->{does} +{}",
            self.name(node),
            records.len()
        );
    }

    // --- load ---

    /// A STREAM payment between local accounts.
    fn pay(&mut self) -> Checked {
        if self.is_healed {
            return Ok(());
        }
        let delay_ns = self.rng.between(500, 5_000) * MS;
        self.plan_in(delay_ns, Event::Pay);
        let locals = self.network.locals();
        let chosen = self.rng.some(locals.len(), 2);
        let (from, to) = (locals[chosen[0]], locals[chosen[1]]);
        let amount = self.rng.magnitude(9);
        let receiver = self.nodes[to].live.as_deref_mut();
        let Some(found) = receiver.and_then(|live| live.core.spsp(LOCAL, None)) else {
            return Ok(());
        };
        let credentials = found.credentials;
        let (secret, address) = (credentials.shared_secret, credentials.destination_account);
        let config = SenderConfig::new(secret, address, Target::Send(amount));
        self.payments += 1;
        let key = self.payments.to_string();
        note!(
            self,
            "{} pays {amount} to {}",
            self.name(from),
            self.name(to)
        );
        let pay = move |core: &mut Connector, now: Now, out: &mut Effects| {
            let request = PaymentRequest {
                account: LOCAL.to_owned(),
                idempotency_key: key,
                request: String::new(),
                receiver: String::new(),
            };
            if let Ok(Made::New(id)) = core.payment_create(now, request, out) {
                core.payment_start(now, id, config, out)
                    .expect("it was just created");
            }
        };
        self.step(from, vec![Work::Command(Box::new(pay))])
    }

    // --- the end ---

    fn heal(&mut self) -> Checked {
        note!(self, "healed");
        self.is_healed = true;
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            (node.skew_ms, node.slow_until_ns) = (0, 0);
            node.disk.set_faults(Faults::default());
            let Some(live) = node.live.as_deref_mut() else {
                continue;
            };
            live.fuse = None;
            // A node whose journal failed wants to be restarted.
            if live.failed {
                self.crash(index, false);
            } else {
                self.after_step(index)?;
            }
        }
        self.heal_engines();
        self.plan_in(STOP_NS, Event::Stop);
        self.plan_in(QUIET_NS, Event::Probe { number: 0 });
        Ok(())
    }

    fn stop(&mut self) -> Checked {
        for node in 0..self.nodes.len() {
            // What its disk did before may show only when it next writes.
            if self.nodes[node]
                .live
                .as_deref()
                .is_some_and(|live| live.failed)
            {
                self.crash(node, false);
            }
            let stop = |core: &mut Connector, now: Now, out: &mut Effects| {
                let payments = core.ledger().payments().values();
                let running = payments.filter(|payment| payment.end.is_none());
                let running: Vec<_> = running.map(|payment| payment.id).collect();
                for id in running {
                    core.payment_stop(now, id, out).expect("it runs");
                }
            };
            self.step(node, vec![Work::Command(Box::new(stop))])?;
            self.change_back(node)?;
        }
        Ok(())
    }

    /// Packets of no value need no credit, so they must get through; one after the other, as some
    /// accounts let few be in flight.
    fn probe(&mut self, number: usize) -> Checked {
        self.witness.is_settled = self.network.learns;
        if number == 0 {
            for node in 0..self.nodes.len() {
                self.settle_parked(node)?;
                self.channels_parked(node)?;
            }
            self.speakers_parked();
        }
        let edges = self.edges.len();
        let each = PROBES_EACH.min(edges - 1);
        let expires_in_ms = PROBE_MS + self.network.windows_ms();
        if number == each * edges {
            self.plan_in((expires_in_ms + 1_000) * MS, Event::End);
            return Ok(());
        }
        let (from, step) = (number / each, number % each + 1);
        let to = self.network.edges[(from + step) % edges].address.clone();
        self.edge_probe(from, &to, expires_in_ms)?;
        let pause_ms = 200 + 25 * self.network.diameter as u64;
        let number = number + 1;
        self.plan_in(pause_ms * MS, Event::Probe { number });
        Ok(())
    }

    fn end(&mut self) -> Checked {
        for node in 0..self.nodes.len() {
            self.step(node, Vec::new())?;
        }
        for key in self.edges.iter().flat_map(|edge| &edge.probes) {
            if self.witness.outcome(*key) != Some(true) {
                return Err(format!("I12: a probe did not get through: {key:?}"));
            }
        }
        let cores: Vec<_> = self
            .nodes
            .iter()
            .filter_map(|node| node.live.as_deref())
            .map(|live| &live.core)
            .collect();
        if cores.len() != self.nodes.len() {
            return Err("I12: a node is down".to_owned());
        }
        if self.network.learns {
            self.check_routes()?;
        }
        self.witness.check_quiet(&cores)?;
        self.check_engines()?;
        self.witness.check_channels()?;
        // Replay equals history.
        for node in 0..self.nodes.len() {
            self.crash(node, false);
            self.open(node)?;
        }
        self.is_over = true;
        Ok(())
    }
}

fn complain_link(link: LinkId) -> Checked {
    Err(format!("an action for {link:?}, which does not exist"))
}

fn seen(work: &Work, links: &Links) -> Seen {
    let input = match work {
        Work::Input(input) => input,
        Work::Command(_) => return Seen::Other,
        Work::Change(change) => return Seen::Change(change.clone()),
        Work::Settling(settling) => match settling {
            Settling::Credit(_, _, call) => return Seen::Credit(call.clone()),
            Settling::Manual(..) | Settling::Retry(_) | Settling::Cancel(_) => {
                return Seen::Operator;
            }
            // What is settled over a channel that opens is settled by itself.
            Settling::Open(..)
            | Settling::Accept(_)
            | Settling::Decline(_)
            | Settling::Limits(..)
            | Settling::Close(..) => return Seen::Other,
        },
    };
    let seen = match input {
        Input::Prepare {
            link,
            request,
            packet,
            ..
        } => links.got(*link, *request).map(|key| Seen::Prepare {
            key,
            packet: packet.to_vec(),
        }),
        Input::Reply {
            link,
            request,
            packet,
        } => links.asking(*link).map(|link| Seen::Reply {
            link,
            key: link.asked(request.0),
            packet: packet.to_vec(),
        }),
        Input::Failed { link, request, .. } => links.asking(*link).map(|link| Seen::Failed {
            key: link.asked(request.0),
        }),
        Input::Timeout => Some(Seen::Timeout),
        Input::LinkUp { .. }
        | Input::LinkDown { .. }
        | Input::Unanswered { .. }
        | Input::Undelivered(_)
        | Input::Introduced { .. }
        | Input::Closed { .. }
        | Input::Settled { .. }
        | Input::MessageAnswered { .. }
        | Input::Synced(_) => None,
    };
    seen.unwrap_or(Seen::Other)
}

/// What a mutant makes of an input; `None`: the core does not get it.
fn mutate_input(
    now: Now,
    input: Input,
    seen: &Seen,
    witness: &Witness,
    mutant: Option<Mutant>,
) -> Option<(Now, Input)> {
    let late = Now {
        mono_ns: now.mono_ns.saturating_sub(20 * S),
        ..now
    };
    match (mutant, input) {
        (Some(Mutant::HoldLeaked), Input::Timeout) => None,
        (Some(Mutant::LateFulfillPaid), input @ Input::Reply { .. }) => Some((late, input)),
        (
            Some(mutant @ (Mutant::PreimageUnchecked | Mutant::RejectCreatesCredit)),
            Input::Reply {
                link,
                request,
                packet,
            },
        ) => {
            let is_fulfill = matches!(Reply::parse(&packet[..]), Ok(Reply::Fulfill(_)));
            let forged = is_fulfill == (mutant == Mutant::PreimageUnchecked);
            let packet = match (forged, seen) {
                (true, Seen::Reply { key, .. }) => {
                    witness.preimage(*key).map_or(packet, crate::edge::fulfill)
                }
                _ => packet,
            };
            Some((
                now,
                Input::Reply {
                    link,
                    request,
                    packet,
                },
            ))
        }
        (_, input) => Some((now, input)),
    }
}

fn mutate_effects(effects: &mut [Effect], mutant: Option<Mutant>, window_ms: i64) {
    for effect in effects {
        let Action::Forward {
            packet, request, ..
        } = &mut effect.action
        else {
            continue;
        };
        let Ok(mut changed) = Prepare::parse(BytesMut::from(&packet[..])) else {
            continue;
        };
        match mutant {
            Some(Mutant::RequestIdReused) => request.0 = (request.0 - 1) % 2 + 1,
            Some(Mutant::RoundedUp) => changed.set_amount(changed.amount().saturating_add(1)),
            Some(Mutant::ExpiryKept) => {
                changed.set_expires_at(changed.expires_at().plus_ms(window_ms))
            }
            _ => {}
        }
        *packet = changed.into_inner().freeze();
    }
}

fn mutate_answer(packet: Bytes, mutant: Option<Mutant>) -> Bytes {
    if mutant != Some(Mutant::FulfillTurnedReject) {
        return packet;
    }
    let reject = RejectBuilder {
        code: ErrorCode::T00_INTERNAL_ERROR,
        triggered_by: None,
        message: "",
        data: &[],
    };
    reject
        .encode()
        .expect("a reject without data is small")
        .into()
}
