//! What goes wrong, as the seed draws it.

use rialto_journal::{Fate, Faults};
use rialto_ledger::Record;

use crate::{
    check::Checked,
    mutant::Mutant,
    node::Fuse,
    plan::Party,
    rng::Rng,
    wire::{CLIENT, Message},
    world::{Event, MS, S, World, note},
};

/// Which kinds of fault a run has, and how much load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) load_ns: u64,
    /// Longest time between two packets of an edge, milliseconds.
    pub(crate) pace_ms: u64,
    /// Messages are late at times.
    pub(crate) is_slow: bool,
    crashes: bool,
    pub(crate) links: bool,
    clocks: bool,
    disks: bool,
    pub(crate) changes: bool,
    floods: bool,
    /// Of settlement engines.
    pub(crate) engines: bool,
}

impl Weather {
    /// Nothing goes wrong by itself.
    pub(crate) const CALM: Self = Self {
        load_ns: 0,
        pace_ms: 0,
        is_slow: false,
        crashes: false,
        links: false,
        clocks: false,
        disks: false,
        changes: false,
        floods: false,
        engines: false,
    };

    pub(crate) fn draw(rng: &mut Rng) -> Self {
        Self {
            load_ns: rng.between(3, 15) * S,
            pace_ms: rng.pick(&[20, 60, 200]),
            is_slow: rng.percent(60),
            crashes: rng.percent(60),
            links: rng.percent(60),
            clocks: rng.percent(40),
            disks: rng.percent(60),
            changes: rng.percent(40),
            floods: rng.percent(20),
            engines: rng.percent(70),
        }
    }
}

impl World {
    /// The next fault, and the one after it later.
    pub(crate) fn fault(&mut self) -> Checked {
        if self.is_healed {
            return Ok(());
        }
        let delay_ns = self.rng.between(50, 1_500) * MS;
        self.plan_in(delay_ns, Event::Fault);
        let weather = self.weather;
        let node = self.rng.index(self.nodes.len());
        let name = self.name(node);
        match self.rng.below(14) {
            0 | 1 if weather.links => self.fault_link(),
            2 if weather.links => self.fault_garbage(),
            3..6 if weather.crashes => {
                let fuse = Fuse {
                    left: u32::try_from(self.rng.below(20)).expect("small"),
                    power_cut: self.rng.percent(60),
                    in_write: self.rng.percent(25),
                };
                note!(self, "{name} will die: {fuse:?}");
                if let Some(live) = self.nodes[node].live.as_deref_mut() {
                    live.fuse.get_or_insert(fuse);
                }
            }
            6 if weather.clocks => {
                let skew_ms = match self.rng.percent(30) {
                    true => 0,
                    false => self
                        .rng
                        .pick(&[-7_200_000, -30_000, -1_000, 900, 5_000, 40_000, 3_600_000]),
                };
                note!(self, "the clock of {name} is {skew_ms} ms ahead");
                self.nodes[node].skew_ms = skew_ms;
            }
            7 if weather.disks => {
                self.nodes[node].slow_until_ns = self.now_ns + self.rng.between(500, 8_000) * MS;
                note!(self, "the disk of {name} is slow");
            }
            8 if weather.disks => return self.fault_checkpoint(node),
            10 if weather.floods => self.fault_flood()?,
            11.. if weather.engines => self.fault_engine(),
            9 if weather.disks && self.rng.percent(30) => {
                let faults = match self.rng.percent(50) {
                    true => Faults {
                        syncs_fail: true,
                        ..Faults::default()
                    },
                    false => Faults {
                        capacity_bytes: Some(0),
                        ..Faults::default()
                    },
                };
                let of = &mut self.nodes[node];
                // A dead node's disk would only keep it from starting.
                let Some(live) = of.live.as_deref_mut() else {
                    return Ok(());
                };
                of.disk.set_faults(faults);
                // Sooner or later somebody restarts it.
                live.fuse.get_or_insert(Fuse {
                    left: 60,
                    power_cut: true,
                    in_write: false,
                });
                note!(self, "the disk of {name} fails: {faults:?}");
            }
            _ => {}
        }
        Ok(())
    }

    /// A connection is lost, or a second one takes its place.
    fn fault_link(&mut self) {
        let mut open: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, of)| of.ends[CLIENT].is_open && of.is_wanted && !of.is_broken)
            .map(|(id, _)| *id)
            .collect();
        if open.is_empty() {
            return;
        }
        let chosen = self.rng.below(open.len() as u64);
        let connection = open.swap_remove(usize::try_from(chosen).expect("it is an index"));
        if self.rng.percent(30) {
            let Some(of) = self.connections.get_mut(&connection) else {
                return;
            };
            of.is_wanted = false;
            let dialler = of.dialler;
            note!(self, "connection {connection} is to be replaced");
            self.plan_in(0, Event::Dial { dialler });
            return;
        }
        let notices = !self.rng.percent(10);
        note!(self, "connection {connection} breaks");
        self.cut(connection, notices);
    }

    /// Nothing of a connection arrives any more; of what is under way each direction may be lost.
    fn cut(&mut self, connection: u32, notices: bool) {
        for to in 0..2 {
            let is_lost = self.is_scripted || self.rng.percent(70);
            let delay_ns = self.rng.between(1, 2_000) * MS;
            let now_ns = self.now_ns;
            let Some(of) = self.connections.get_mut(&connection) else {
                return;
            };
            of.is_broken = true;
            let end = &mut of.ends[to];
            end.epoch += u32::from(is_lost);
            let at_ns = match is_lost {
                true => now_ns + delay_ns,
                false => (now_ns + delay_ns).max(end.last_arrival_ns + 1),
            };
            if notices {
                self.plan_at(at_ns, Event::Down { connection, to });
            }
        }
    }

    /// All connections between two nodes are lost, with what is on them.
    pub(crate) fn cut_between(&mut self, a: usize, b: usize) -> Checked {
        let is_theirs = |parties: [Party; 2]| {
            [a, b]
                .iter()
                .all(|node| parties.contains(&Party::Node(*node)))
        };
        let theirs = self.connections.iter().filter(|(_, of)| {
            of.ends[CLIENT].is_open && is_theirs(of.ends.each_ref().map(|end| end.party))
        });
        let theirs: Vec<_> = theirs.map(|(connection, _)| *connection).collect();
        for connection in &theirs {
            self.cut(*connection, true);
        }
        match theirs.is_empty() {
            true => Err("they are not connected".to_owned()),
            false => Ok(()),
        }
    }

    /// The hostile edge sends frames that mean nothing.
    fn fault_garbage(&mut self) {
        let edges = self.network.edges.iter().enumerate();
        let hostile: Vec<_> = edges.filter(|(_, edge)| !edge.is_honest).collect();
        if hostile.is_empty() {
            return;
        }
        let (edge, plan) = hostile[self.rng.index(hostile.len())];
        let name = self.name(plan.node);
        let Some(connection) = self.edges[edge].connection else {
            return;
        };
        for _ in 0..self.rng.between(1, 10) {
            let bytes = self.rng.bytes();
            let kept = usize::try_from(self.rng.below(32)).expect("small");
            self.send(connection, CLIENT, Message::Frame(bytes[..kept].to_vec()));
        }
        note!(self, "garbage to {name}");
    }

    /// A neighbour sends as much as it can.
    fn fault_flood(&mut self) -> Checked {
        let edge = self.rng.index(self.edges.len());
        let packets = self.rng.between(20, 200);
        let name = self.network.edges[edge].name.clone();
        note!(self, "{name} floods: {packets}");
        (0..packets).try_for_each(|_| self.edge_packet_drawn(edge))
    }

    /// A checkpoint, in which the process may die.
    fn fault_checkpoint(&mut self, node: usize) -> Checked {
        let dies = self.weather.crashes && self.rng.percent(50);
        let left = self.rng.below(12);
        let power_cut = self.rng.percent(50);
        let of = &mut self.nodes[node];
        let Some(live) = of.live.as_deref_mut() else {
            return Ok(());
        };
        if live.failed {
            return Ok(());
        }
        let (at, records) = (live.core.lsn(), live.core.ledger().snapshot());
        let forgets = self.options.mutant == Some(Mutant::CreditKeyForgotten);
        let is_kept = |record: &Record| !forgets || !matches!(record, Record::CreditKept { .. });
        let records = records.filter(is_kept).map(|record| {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            bytes
        });
        if dies {
            of.disk.set_faults(Faults {
                operations_left: Some(left),
                ..Faults::default()
            });
        }
        let done = live.journal.checkpoint(rialto_journal::Lsn(at.0), records);
        note!(
            self,
            "checkpoint of {} at {}: {done:?}",
            self.name(node),
            at.0
        );
        if dies {
            self.crash(node, power_cut);
        } else if done.is_err() {
            // The disk was full or failing: the journal knows itself whether it goes on.
            return Ok(());
        }
        Ok(())
    }

    /// A node dies. What it wrote survives, or only what it synced.
    pub(crate) fn crash(&mut self, node: usize, power_cut: bool) {
        let Some(live) = self.nodes[node].live.take() else {
            return;
        };
        let death = live.death(power_cut);
        self.http_orphan(live.links.waiting.keys().copied());
        drop(live);
        note!(self, "{} dies: {death:?}", self.name(node));
        let piece_bytes = self.rng.pick(&[1, 24, 512, 4_096]);
        // All that was not synced is lost, or each piece has its own fate.
        let mood = match self.is_scripted {
            true => 0,
            false => self.rng.below(3),
        };
        let of = &mut self.nodes[node];
        of.death = Some(death);
        of.disk.set_faults(Faults::default());
        if power_cut {
            let rng = &mut self.rng;
            of.disk.crash(piece_bytes, || match mood {
                0 => Fate::Lost,
                1 => rng.pick(&[Fate::Kept, Fate::Kept, Fate::Lost, Fate::Zeroed]),
                _ => rng.pick(&[Fate::Kept, Fate::Lost]),
            });
        } else {
            of.disk.kill();
        }
        let connections: Vec<_> = self.connections.keys().copied().collect();
        for connection in connections {
            let Some(of) = self.connections.get_mut(&connection) else {
                continue;
            };
            let is_mine = |end: usize| of.ends[end].party == Party::Node(node);
            let Some(mine) = [0, 1].into_iter().find(|end| is_mine(*end)) else {
                continue;
            };
            if of.ends[mine].is_open {
                of.ends[mine].is_open = false;
                self.cut(connection, true);
            }
        }
        if !self.is_scripted {
            let delay_ns = self.rng.between(5, 3_000) * MS;
            self.plan_in(delay_ns, Event::Restart { node });
        }
    }
}
