//! A million routes: how long a look-up takes beside a thousand, how long packets wait while they are
//! learnt and forgotten, and what each takes in memory. And how long they wait while accounts are made, changed
//! and deleted among a million.

use std::{fs, path::PathBuf, time::Instant};

use bytes::BytesMut;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use rialto_ccp::{
    HOLD_DOWN_MS, Route, TableId, UPDATE_DESTINATION, UpdateBuilder, UpdateHead, message::List,
};
use rialto_connector::{Connector, Effects, Input, LinkId, Now, RequestId, Settings};
use rialto_ledger::{
    AccountId, AccountSettings, AccountTerms, IncomingToken, Relation, RouteExchange, TokenHash,
};
use rialto_packet::{Addr, PEER_CONDITION, PrepareBuilder, Timestamp, oer};
use rialto_routing::{Candidate, Candidates, Kin, Source, Table};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    Result,
    suite::report::{Figure, quotient},
};

/// Look-ups that are timed.
const LOOKUPS: usize = 2_000_000;

/// Destinations that traffic goes to at the same time.
const BUSY: usize = 1_000;

/// Times that all is learnt and forgotten. The steps are the same each time, and what else the machine does is
/// not: the least of each counts.
const RUNS: usize = 3;

/// Accounts that are made, changed and deleted among very many.
const NEW_ACCOUNTS: u64 = 1_000;

/// Routes in one update.
const UPDATE_ROUTES: usize = 400;

const MS: u64 = 1_000_000;

/// Times as long as among a thousand routes that a look-up among a million may take.
const LOOKUP_TIMES_MAX: f64 = 1.5;

/// Longest time for which one step may hold the core, in microseconds of its processor.
const PAUSE_US_MAX: f64 = 50.0;

/// The same for the step with which a checkpoint begins, about once in a million packets.
const CHECKPOINT_US_MAX: f64 = 1_000.0;

/// How large the table is.
#[derive(clap::Args)]
pub(crate) struct Routes {
    /// Routes in the large table
    #[arg(long, default_value_t = 1_000_000)]
    count: usize,
    /// Fail where a look-up or a step takes longer than it may
    #[arg(long)]
    check: bool,
    /// Write the figures to this file, for `suite --routes`
    #[arg(long)]
    write: Option<PathBuf>,
}

impl Routes {
    pub(crate) fn run(&self) -> Result<()> {
        let figures = self.measure()?;
        if let Some(file) = &self.write {
            fs::write(file, serde_json::to_vec(&figures)?)?;
        }
        let mut missed = figures.iter().filter(|figure| figure.is_missed());
        match missed.next() {
            Some(figure) if self.check => {
                Err(format!("{}: {} {}", figure.name, figure.value, figure.unit).into())
            }
            Some(_) | None => Ok(()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "figures to a few digits")]
    fn measure(&self) -> Result<Vec<Figure>> {
        // First: what the tables of the look-ups leave behind would be taken again.
        let (mut learning, mut forgetting, bytes) = self.learn(true)?;
        for _ in 1..RUNS {
            let (again_learning, again_forgetting, _) = self.learn(false)?;
            learning.lower(&again_learning);
            forgetting.lower(&again_forgetting);
        }
        learning.tell("learning");
        forgetting.tell("forgetting");
        let (mut making, mut copying) = self.make_accounts();
        for _ in 1..RUNS {
            let (again_making, again_copying) = self.make_accounts();
            making.lower(&again_making);
            copying.lower(&again_copying);
        }
        making.tell("accounts are made, changed and deleted");
        copying.tell("a checkpoint begins");
        let lookup_times = self.lookups()?;
        let longest_ns = learning.longest_ns().max(forgetting.longest_ns());
        let of = format!("{} routes", self.count);
        let figure = |name: String, value: f64, unit: &str, at_most| Figure {
            name,
            value,
            unit: unit.to_owned(),
            at_most,
        };
        Ok(vec![
            figure(
                format!("look-up among {of}, beside {BUSY}"),
                lookup_times,
                "times",
                Some(LOOKUP_TIMES_MAX),
            ),
            figure(
                format!("longest step of the core while {of} are learnt and forgotten"),
                quotient(longest_ns, 1_000).unwrap_or(0.0),
                "us",
                Some(PAUSE_US_MAX),
            ),
            figure(
                format!(
                    "longest step of the core while accounts are made, changed and deleted among {}",
                    self.count
                ),
                quotient(making.longest_ns(), 1_000).unwrap_or(0.0),
                "us",
                Some(PAUSE_US_MAX),
            ),
            figure(
                format!(
                    "step with which a checkpoint of {} accounts begins",
                    self.count
                ),
                quotient(copying.longest_ns(), 1_000).unwrap_or(0.0),
                "us",
                Some(CHECKPOINT_US_MAX),
            ),
            figure(
                format!("memory per learnt route, of {of} that share paths"),
                bytes as f64,
                "bytes",
                None,
            ),
        ])
    }

    /// The same destinations in both tables, and then every destination that the large one knows. How many
    /// times as long a look-up takes in the large one; the least, as other programs only add to it.
    fn lookups(&self) -> Result<f64> {
        let (small, large) = (table(BUSY), table(self.count));
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let busy = destinations(&mut rng, BUSY);
        let all = destinations(&mut rng, self.count);
        let mut times = f64::INFINITY;
        for _ in 0..RUNS {
            let (small_ns, large_ns) = (time(&small, &busy), time(&large, &busy));
            times = times.min(quotient(large_ns, small_ns).unwrap_or(f64::INFINITY));
            let all_ns = time(&large, &all);
            println!(
                "look-up, {BUSY} busy destinations: {small_ns} ns among {BUSY} routes, {large_ns} ns among {}: {}.{:02} times",
                self.count,
                large_ns / small_ns,
                large_ns * 100 / small_ns % 100,
            );
            println!(
                "look-up, every destination once: {all_ns} ns among {}",
                self.count
            );
        }
        Ok(times)
    }

    /// One peer tells all routes, and then goes. The memory that each takes shows the first time alone.
    fn learn(&self, is_first: bool) -> Result<(Pauses, Pauses, u64)> {
        let mut node = Node::new(u32::try_from(2 * self.count)?);
        let before = resident_bytes()?;
        let updates = self.count.div_ceil(UPDATE_ROUTES);
        for update in 0..updates {
            let packet = update_packet(update, updates)?;
            node.input(Input::Prepare {
                account: node.peer,
                link: LinkId::Waiting { worker: 0 },
                request: RequestId(update as u64),
                packet,
            });
            node.settle();
        }
        let learnt = node.core.route_count();
        let bytes = resident_bytes()?.saturating_sub(before) / learnt as u64;
        if is_first {
            println!("learnt {learnt} routes in {} steps", node.pauses.0.len());
            println!(
                "memory: {bytes} bytes for each route of {} bytes",
                prefix(0).len()
            );
        }
        let learning = std::mem::take(&mut node.pauses);
        node.input(Input::LinkDown { link: node.link });
        node.settle();
        assert_eq!(node.core.route_count(), 1, "our own is left");
        Ok((learning, node.pauses, bytes))
    }
}

impl Routes {
    /// Each step is one command of an operator, among as many accounts as there are routes elsewhere, while a
    /// checkpoint is written. The step with which that began is apart.
    fn make_accounts(&self) -> (Pauses, Pauses) {
        const GOOD: &str = "a good command";
        /// Accounts that are changed stand apart from each other.
        const APART: u64 = 997;
        let mut node = Node::new(0);
        let count = self.count as u64;
        for number in 0..count {
            let made = node
                .core
                .account_create(customer(number, false), &mut node.out);
            made.expect(GOOD);
            node.out.drain().for_each(drop);
        }
        let books = node.step(|core, _, _| core.ledger().snapshot());
        let copying = std::mem::take(&mut node.pauses);
        for number in 0..NEW_ACCOUNTS {
            let new = count + number;
            let made = node.step(|core, _, out| core.account_create(customer(new, false), out));
            made.expect(GOOD);
            let old = number * APART % count;
            let paused = node.step(|core, _, out| core.account_update(customer(old, true), out));
            paused.expect(GOOD);
        }
        for number in count..count + NEW_ACCOUNTS {
            let name = customer(number, false).name;
            let deleted = node.step(|core, _, out| core.account_delete(&name, out));
            deleted.expect(GOOD);
        }
        drop(books);
        (node.pauses, copying)
    }
}

/// With a token of its own.
fn customer(number: u64, paused: bool) -> AccountSettings {
    let mut hash = [0; 32];
    ChaCha20Rng::seed_from_u64(number).fill_bytes(&mut hash);
    let terms = AccountTerms {
        relation: Relation::Child,
        paused,
        ..terms(RouteExchange::default())
    };
    AccountSettings {
        name: format!("customer{number}"),
        incoming_tokens: vec![IncomingToken {
            hash: TokenHash(hash),
            jwt: None,
            pin: false,
            expires_at_ms: None,
        }],
        terms: terms.into(),
    }
}

/// Of a peer.
fn terms(routes: RouteExchange) -> AccountTerms {
    AccountTerms {
        routes,
        ..AccountTerms::new(Relation::Peer, "USD/9".parse().expect("an asset"))
    }
}

fn prefix(number: usize) -> String {
    format!("g.hub{:03}.node{number:07}", number % 1000)
}

fn table(count: usize) -> Table<Candidates<u32>> {
    let mut table = Table::new([5, 6]);
    for number in 0..count {
        table
            .put(&prefix(number), Candidates::default)
            .put(Candidate {
                hop: 1,
                table: 0,
                source: Source::Learnt,
                kin: Kin::Peer,
                hop_count: 1,
                weight: 1,
                path: None,
            });
    }
    table
}

fn destinations(rng: &mut ChaCha20Rng, count: usize) -> Vec<String> {
    let mut numbers: Vec<_> = (0..count).collect();
    for index in (1..count).rev() {
        let other = usize::try_from(rng.next_u64() % (index as u64 + 1)).unwrap_or(0);
        numbers.swap(index, other);
    }
    let token = "2vTGZuYNMpY5Y3SI3w9uMQqRcAoXhOEPr6qbwLbPnt8";
    let numbers = numbers.into_iter();
    numbers
        .map(|number| format!("{}.alice.{token}", prefix(number)))
        .collect()
}

/// Nanoseconds for one look-up.
fn time(table: &Table<Candidates<u32>>, destinations: &[String]) -> u64 {
    let started = Instant::now();
    let mut found = 0;
    for destination in destinations.iter().cycle().take(LOOKUPS) {
        let address = Addr::new(destination).expect("a valid address");
        let hop = table.longest_match(address, |all| {
            let chosen = all.choose(0, |_| true, |_| true);
            chosen.map(|one| one.hop)
        });
        found += usize::from(hop.is_some());
    }
    assert_eq!(found, LOOKUPS);
    u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX) / LOOKUPS as u64
}

struct Node {
    core: Connector,
    peer: AccountId,
    link: LinkId,
    now: Now,
    out: Effects,
    pauses: Pauses,
}

/// How long the core was held in each step: by the clock, and by the processor.
#[derive(Default)]
struct Pauses(Vec<(u64, u64)>);

impl Node {
    fn new(routes_max: u32) -> Self {
        let settings = Settings::new("g.bench".parse().expect("an address"));
        let mut core = Connector::new(settings, [0; 32], ChaCha20Rng::seed_from_u64(2));
        let mut out = Effects::default();
        let account = AccountSettings {
            name: "peer".to_owned(),
            incoming_tokens: Vec::new(),
            terms: terms(RouteExchange {
                receive: Some(true),
                count_max: Some(routes_max),
                ..RouteExchange::default()
            })
            .into(),
        };
        let peer = core
            .account_create(account, &mut out)
            .expect("a good account");
        let link = LinkId::Session {
            worker: 0,
            serial: 1,
        };
        let mut node = Self {
            core,
            peer,
            link,
            now: Now {
                mono_ns: 1_000 * MS,
                wall: Timestamp::from_unix_ms(1_900_000_000_000),
            },
            out,
            pauses: Pauses::default(),
        };
        node.input(Input::LinkUp {
            link,
            account: peer,
        });
        node.settle();
        node.pauses.0.clear();
        node
    }

    fn input(&mut self, input: Input) {
        self.step(|core, now, out| core.handle(now, input, out));
    }

    /// One step, of which is kept how long it took.
    fn step<T>(&mut self, work: impl FnOnce(&mut Connector, Now, &mut Effects) -> T) -> T {
        let (started, processor_ns) = (Instant::now(), processor_ns());
        let done = work(&mut self.core, self.now, &mut self.out);
        let wall_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.pauses
            .0
            .push((wall_ns, self::processor_ns() - processor_ns));
        self.out.drain().for_each(drop);
        done
    }

    /// Whatever is due now, in steps between which packets pass.
    fn settle(&mut self) {
        while self
            .core
            .poll_timeout()
            .is_some_and(|due| due <= self.now.mono_ns)
        {
            self.input(Input::Timeout);
        }
    }
}

impl Pauses {
    /// The same steps once more: the least of each is what they take by themselves.
    fn lower(&mut self, again: &Self) {
        assert_eq!(self.0.len(), again.0.len(), "the same steps each time");
        for (step, other) in self.0.iter_mut().zip(&again.0) {
            *step = (step.0.min(other.0), step.1.min(other.1));
        }
    }

    /// Of the processor's time.
    fn longest_ns(&self) -> u64 {
        let steps = self.0.iter().map(|(_, processor_ns)| *processor_ns);
        steps.max().unwrap_or(0)
    }

    fn tell(&self, what: &str) {
        let (mut wall, mut processor): (Vec<_>, Vec<_>) = self.0.iter().copied().unzip();
        wall.sort_unstable();
        processor.sort_unstable();
        let at = |sorted: &[u64], per_million: usize| {
            let index = (sorted.len() * per_million / 1_000_000).min(sorted.len() - 1);
            sorted[index] / 1_000
        };
        for (clock, sorted) in [("processor", &processor), ("clock", &wall)] {
            println!(
                "pause while {what}, by the {clock}: {} us median, {} us 99.9 %, {} us 99.99 %, {} us longest",
                at(sorted, 500_000),
                at(sorted, 999_000),
                at(sorted, 999_900),
                at(sorted, 1_000_000),
            );
        }
    }
}

/// Of this thread: what other programs take is no pause of ours.
fn processor_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

fn update_packet(update: usize, updates: usize) -> Result<BytesMut> {
    let mut builder = UpdateBuilder::new();
    let mut path = Vec::new();
    oer::put_var_octets(&mut path, b"g.peer");
    oer::put_var_octets(&mut path, format!("g.hub{:03}", update % 1000).as_bytes());
    for number in update * UPDATE_ROUTES..(update + 1) * UPDATE_ROUTES {
        let prefix = prefix(number);
        let route = Route {
            prefix: &prefix,
            path: List {
                count: 2,
                bytes: &path,
            },
            auth: [0; 32],
            properties: List {
                count: 0,
                bytes: &[],
            },
        };
        builder.route(None, &route);
    }
    let head = UpdateHead {
        table_id: TableId([1; 16]),
        current_epoch: u32::try_from(updates)?,
        from_epoch: u32::try_from(update)?,
        to_epoch: u32::try_from(update)? + 1,
        hold_down_ms: HOLD_DOWN_MS,
    };
    let packet = PrepareBuilder {
        amount: 0,
        expires_at: Timestamp::from_unix_ms(1_900_000_060_000),
        condition: PEER_CONDITION,
        destination: Addr::new(UPDATE_DESTINATION)?,
        data: &builder.finish(&head, "g.peer"),
    };
    Ok(BytesMut::from(&packet.encode()?[..]))
}

/// Of this process.
fn resident_bytes() -> Result<u64> {
    let pages = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = pages.split(' ').nth(1).unwrap_or("0").parse()?;
    Ok(pages * 4096)
}
