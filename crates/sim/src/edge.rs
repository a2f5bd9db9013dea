//! Scripted neighbours at the edge of the network: they send and answer raw packets whose data is
//! the preimage of their condition. The honest ones answer truthfully and in time.

use std::collections::VecDeque;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use rialto_ledger::AccountId;
use rialto_packet::{ErrorCode, FulfillBuilder, Prepare, PrepareBuilder, RejectBuilder};

use crate::{
    check::{Checked, HopKey},
    node::wall,
    plan::{LOCAL, Party},
    wire::{CLIENT, Message},
    world::{Event, MS, World},
};

/// Known to everybody.
const PING_FULFILLMENT: &[u8; 32] = b"pingpingpingpingpingpingpingping";

/// One of [`crate::plan::Network::edges`] while a run lasts.
#[derive(Debug, Default)]
pub(crate) struct EdgeState {
    /// The newest that was authenticated, or what stands for one by HTTP.
    pub(crate) connection: Option<u32>,
    last_request: u32,
    /// In a story: packets that it has not answered yet, and their preimages.
    pub(crate) got: VecDeque<(ReplyTo, [u8; 32])>,
    /// The packets that must get through in the end.
    pub(crate) probes: Vec<HopKey>,
}

/// What an answer of an edge belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ReplyTo {
    Session {
        connection: u32,
        end: usize,
        request: u32,
    },
    Http {
        exchange: u32,
    },
}

/// A Fulfill without data.
pub(crate) fn fulfill(fulfillment: [u8; 32]) -> Bytes {
    let fulfill = FulfillBuilder {
        fulfillment,
        data: &[],
    };
    fulfill.encode().expect("no data is not too much").into()
}

pub(crate) fn reject() -> Bytes {
    let reject = RejectBuilder {
        code: ErrorCode::F99_APPLICATION_ERROR,
        triggered_by: None,
        message: "no",
        data: &[],
    };
    reject.encode().expect("no data is not too much").into()
}

impl World {
    /// The next packet of an edge, and the one after it later.
    pub(crate) fn edge_send(&mut self, edge: usize) -> Checked {
        if self.is_healed {
            return Ok(());
        }
        let pace_ms = self.weather.pace_ms;
        let delay_ns = self.rng.between(1, pace_ms) * MS;
        self.plan_in(delay_ns, Event::EdgeSend { edge });
        self.edge_packet_drawn(edge)
    }

    /// Sends one packet.
    pub(crate) fn edge_packet_drawn(&mut self, edge: usize) -> Checked {
        let amount = match self.rng.below(40) {
            0 => 0,
            1 => u64::MAX - self.rng.below(2),
            _ => self.rng.magnitude(self.network.edges[edge].digits_max),
        };
        let destination = self.edge_destination(edge);
        let preimage = match destination.matches('.').count() {
            1 if self.rng.percent(50) => *PING_FULFILLMENT,
            _ => self.rng.bytes(),
        };
        let expires_in_ms = match self.rng.below(10) {
            0 => self.rng.below(2_500),
            1 => self.rng.between(10_000, 60_000),
            _ => self.rng.between(2_500, 10_000),
        };
        let mut packet = self.edge_packet(&destination, amount, preimage, expires_in_ms);
        if !self.network.edges[edge].is_honest && self.rng.percent(3) {
            // Something that begins like a Prepare.
            let kept = self.rng.below(packet.len() as u64);
            packet.truncate(usize::try_from(kept).expect("it is a length").max(1));
        }
        self.edge_ask(edge, &packet);
        Ok(())
    }

    /// Mostly another edge; else a node, nobody, a STREAM receiver, or a neighbour's service.
    fn edge_destination(&mut self, edge: usize) -> String {
        let edges = &self.network.edges;
        if self.rng.percent(85) {
            let other = edge + 1 + self.rng.index(edges.len() - 1);
            return edges[other % edges.len()].address.clone();
        }
        let node = self.network.nodes[self.rng.index(self.nodes.len())].address();
        match self.rng.below(6) {
            0..3 => node,
            3 => "g.nowhere.at.all".to_owned(),
            4 => format!("{node}.{LOCAL}.token"),
            _ => "peer.config".to_owned(),
        }
    }

    /// What a story asks for.
    pub(crate) fn edge_pay(
        &mut self,
        edge: usize,
        destination: &str,
        amount: u64,
        expires_in_ms: u64,
    ) -> Checked {
        let preimage = self.rng.bytes();
        let packet = self.edge_packet(destination, amount, preimage, expires_in_ms);
        let asked = self.edge_ask(edge, &packet);
        asked.map(drop).ok_or("it is not connected".to_owned())
    }

    /// A packet without value, which needs nobody's credit.
    pub(crate) fn edge_probe(
        &mut self,
        edge: usize,
        destination: &str,
        expires_in_ms: u64,
    ) -> Checked {
        let preimage = self.rng.bytes();
        let packet = self.edge_packet(destination, 0, preimage, expires_in_ms);
        let key = self
            .edge_ask(edge, &packet)
            .ok_or("I12: an edge is not connected")?;
        self.edges[edge].probes.push(key);
        Ok(())
    }

    fn edge_packet(
        &self,
        destination: &str,
        amount: u64,
        preimage: [u8; 32],
        expires_in_ms: u64,
    ) -> Vec<u8> {
        let condition = digest(&SHA256, &preimage);
        let expires_in_ms = i64::try_from(expires_in_ms).expect("minutes at most");
        let destination = destination
            .parse::<rialto_packet::Address>()
            .expect("addresses are good");
        let prepare = PrepareBuilder {
            amount,
            expires_at: wall(self.now_ns).plus_ms(expires_in_ms),
            condition: condition
                .as_ref()
                .try_into()
                .expect("SHA-256 gives 32 bytes"),
            destination: destination.as_ref(),
            data: &preimage,
        };
        prepare.encode().expect("32 bytes are not too much")
    }

    pub(crate) fn edge_ask(&mut self, edge: usize, packet: &[u8]) -> Option<HopKey> {
        let connection = self.edges[edge].connection?;
        let plan = &self.network.edges[edge];
        let (node, is_http) = (plan.node, plan.is_http);
        let payer = self.witness.plan(node).id(&plan.name);
        let from = Party::Edge(edge);
        self.edges[edge].last_request += 1;
        let request = self.edges[edge].last_request;
        let key = Self::key(connection, CLIENT, request.into());
        if is_http {
            self.witness.edge_asks(key, from, node, payer, packet);
            self.http_ask(from, AccountId::NODE, Party::Node(node), key, packet);
            return Some(key);
        }
        let of = self.connections.get(&connection)?;
        let mut frame = Vec::new();
        let sent = of.ends[CLIENT]
            .session
            .send_prepare(request, packet, &mut frame);
        sent.ok()?;
        self.witness.edge_asks(key, from, node, payer, packet);
        self.send(connection, CLIENT, Message::Frame(frame));
        Some(key)
    }

    /// An edge got a packet and decides what to answer, and when.
    pub(crate) fn edge_prepare(&mut self, edge: usize, to: ReplyTo, packet: &[u8]) {
        if self.is_scripted {
            return self.edge_gets(edge, to, packet);
        }
        let Ok(prepare) = Prepare::parse(packet) else {
            return;
        };
        if rialto_channel::is_ours(prepare.data()) {
            return self.speaker_hears(edge, to, prepare.data());
        }
        let preimage = prepare.data().try_into().unwrap_or([0; 32]);
        let left_ms = prepare.expires_at().ms_since(wall(self.now_ns));
        let left_ns = u64::try_from(left_ms).unwrap_or(0) * MS;
        let soon_ns = self.rng.below(300) * MS;
        let wrong = self.rng.bytes();
        let answer = |delay_ns: u64, to: ReplyTo, packet: Bytes| {
            let packet = packet.to_vec();
            (delay_ns, Event::EdgeReply { to, packet })
        };
        let behaviour = match self.network.edges[edge].is_honest || self.is_healed {
            true => self.rng.below(50),
            false => self.rng.below(100),
        };
        let answers = match behaviour {
            // Some of the probes' time is over before anything else can be.
            0..5 if !self.is_healed => vec![answer(soon_ns, to, reject())],
            0..50 => vec![answer(soon_ns, to, fulfill(preimage))],
            50..60 => vec![answer(soon_ns, to, fulfill(wrong))],
            // Around the last moment, or after it.
            60..75 => {
                let delay_ns = left_ns.saturating_sub(20 * MS)
                    + self.rng.below(3_000) * MS / 50 * self.rng.pick(&[1, 50]);
                vec![answer(delay_ns, to, fulfill(preimage))]
            }
            75..82 => Vec::new(),
            82..86 => {
                // What begins like a Prepare would be a request with an id that is in use.
                let bytes = [&[0xff], &wrong[..]].concat();
                vec![answer(soon_ns, to, bytes.into())]
            }
            86..93 => {
                let again_ns = soon_ns + self.rng.below(100) * MS;
                let first = answer(soon_ns, to, fulfill(preimage));
                vec![first, answer(again_ns, to, fulfill(preimage))]
            }
            93..97 => {
                let first = answer(soon_ns, to, reject());
                vec![first, answer(soon_ns + MS, to, fulfill(preimage))]
            }
            _ => match to {
                ReplyTo::Session {
                    connection,
                    end,
                    request,
                } => {
                    let to = ReplyTo::Session {
                        connection,
                        end,
                        request: request.wrapping_add(1_000),
                    };
                    vec![answer(soon_ns, to, fulfill(preimage))]
                }
                ReplyTo::Http { .. } => Vec::new(),
            },
        };
        for (delay_ns, event) in answers {
            self.plan_in(delay_ns, event);
        }
    }

    pub(crate) fn edge_reply(&mut self, to: ReplyTo, packet: &[u8]) {
        let (connection, end, request) = match to {
            ReplyTo::Http { exchange } => return self.http_answer(exchange, packet),
            ReplyTo::Session {
                connection,
                end,
                request,
            } => (connection, end, request),
        };
        let Some(of) = self.connections.get(&connection) else {
            return;
        };
        let mut frame = Vec::new();
        if of.ends[end]
            .session
            .send_reply(request, packet, &mut frame)
            .is_ok()
        {
            self.send(connection, end, Message::Frame(frame));
        }
    }
}
