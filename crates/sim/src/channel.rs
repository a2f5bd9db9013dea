//! Settlement channels: what operators do with them, and scripted neighbours that speak them. The
//! honest ones are the other side of a real [`Channel`], without a disk. Mallory has one too, and
//! beside what it says tells whatever may deceive a node: every lie must be refused, or repeated
//! safely.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use rialto_channel::{
    Answer, Body, Channel, ChannelId, ChannelKey, Digest, Event as Step, Frame, Greeting, Kind,
    Limits, Message, Paid, Phase, PublicKey, Queued, Signature, Terms, VERSION,
};
use rialto_ledger::AccountId;
use rialto_packet::{
    Addr, FulfillBuilder, PEER_CONDITION, PEER_FULFILLMENT, PrepareBuilder, Reply,
};

use crate::{
    check::{Checked, HopKey},
    edge::{ReplyTo, reject},
    engine::Settling,
    node::wall,
    plan::{Edge, Network, NodePlan},
    trouble::Trouble,
    world::{Event, MS, S, World, note},
};

/// Channels with one account, ended ones among them: so few that none is forgotten.
const CHANNELS_EACH: usize = 12;
/// After so long without an answer a scripted neighbour says it again.
const AGAIN_NS: u64 = 2 * S;
/// Life of what it says. Milliseconds.
const MESSAGE_MS: i64 = 30_000;
/// Frames that it remembers, to say them once more.
const FRAMES_MAX: usize = 40;
/// In the bytes of a frame: what tells its number.
const SEQUENCE: Range<usize> = 26..34;
/// In the bytes of a frame: its kind, and one that there is not.
const KIND: usize = 25;
const UNKNOWN_KIND: u8 = 9;

/// A scripted neighbour as the other side of channels.
#[derive(Debug)]
pub(crate) struct Speaker {
    key: ChannelKey,
    channels: BTreeMap<ChannelId, Channel>,
    /// What it asked and was not answered.
    asked: BTreeMap<HopKey, (ChannelId, u64)>,
    /// When each channel's first message was last told.
    told_ns: BTreeMap<ChannelId, u64>,
    /// The node's key, once it has greeted.
    node_key: Option<PublicKey>,
    frames: Vec<Vec<u8>>,
}

impl Speaker {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            key: ChannelKey::from_seed(&Digest::of(name.as_bytes()).0),
            channels: BTreeMap::new(),
            asked: BTreeMap::new(),
            told_ns: BTreeMap::new(),
            node_key: None,
            frames: Vec::new(),
        }
    }

    fn answered_frames(&self) -> Vec<Vec<u8>> {
        let is_answered = |bytes: &&Vec<u8>| {
            let Ok(frame) = Frame::parse(bytes) else {
                return false;
            };
            let channel = self.channels.get(&frame.channel);
            let waiting = channel.and_then(Channel::outgoing);
            waiting.is_none_or(|waiting| frame.sequence < waiting.sequence)
        };
        self.frames.iter().filter(is_answered).cloned().collect()
    }

    fn greeting(&self) -> Greeting {
        let unended = self.channels.values().filter(|channel| !channel.is_quiet());
        Greeting {
            versions: vec![VERSION],
            kinds: Kind::ALL.iter().map(|kind| kind.code()).collect(),
            key: self.key.public(),
            channels: unended.map(Channel::standing).collect(),
        }
    }
}

/// Whether the holder of an account speaks channels.
fn speaks(network: &Network, node: usize, account: &str) -> bool {
    let mut accounts = network.nodes[node].accounts.iter();
    let found = accounts.find(|plan| &*plan.name == account);
    let terms = found.and_then(|plan| plan.terms.as_ref());
    terms.is_some_and(|terms| terms.speaks)
}

/// Those of a network, by edge.
pub(crate) fn speakers(network: &Network) -> Vec<Option<Speaker>> {
    let edges = network.edges.iter();
    let speaker =
        |edge: &Edge| speaks(network, edge.node, &edge.name).then(|| Speaker::new(&edge.name));
    edges.map(speaker).collect()
}

fn greeting(greeting: Greeting) -> Frame {
    Frame {
        channel: ChannelId::NONE,
        kind: None,
        sequence: 0,
        acknowledgement: 0,
        body: Body::Greeting(greeting),
    }
}

fn telling(channel: &Channel, sequence: u64, message: Message) -> Frame {
    Frame {
        channel: channel.id,
        kind: Some(channel.terms.kind),
        sequence,
        acknowledgement: channel.received,
        body: Body::Message(message),
    }
}

fn is_payment(message: &Message) -> bool {
    matches!(
        message,
        Message::Claim { .. } | Message::Order { .. } | Message::Credit { .. }
    )
}

/// Of two limits those that the kind allows: on an asymmetrical trustline only the keeper's.
fn limits(kind: Kind, limits: [u64; 2], keeper: usize) -> [u64; 2] {
    match kind {
        Kind::SymmetricalTrustline => limits,
        Kind::AsymmetricalTrustline if keeper == 0 => [limits[0], 0],
        Kind::AsymmetricalTrustline => [0, limits[1]],
    }
}

impl World {
    // --- operators ---

    /// Accounts whose holders speak channels, with their nodes.
    pub(crate) fn trusted(&self) -> Vec<(usize, AccountId)> {
        let nodes = self.network.nodes.iter().enumerate();
        let of = |(node, plan): (usize, &NodePlan)| {
            let accounts = plan.accounts.iter();
            let trusted = accounts.filter(|of| of.terms.as_ref().is_some_and(|of| of.speaks));
            let trusted = trusted.map(|of| (node, plan.id(&of.name)));
            trusted.collect::<Vec<_>>()
        };
        nodes.flat_map(of).collect()
    }

    /// What an operator does with a channel.
    pub(crate) fn channel_next(&mut self, node: usize, account: AccountId) -> Checked {
        let plan = self.witness.plan(node).account(account);
        let (name, scale) = (plan.name.clone(), plan.scale);
        let known: Vec<Channel> = {
            let known = self.witness.nodes[node].trust.of(account);
            known.into_iter().cloned().collect()
        };
        let unended = known.iter().filter(|channel| !channel.phase.is_ended());
        let unended: Vec<_> = unended.collect();
        let opens = match unended.len() {
            0 => 40,
            1 => 8,
            _ => 0,
        };
        if known.len() < CHANNELS_EACH && self.rng.percent(opens) {
            let (kind, limits) = self.channel_limits(scale);
            // A request that is made again, now and then.
            let key = format!("{name} {}", self.rng.below(100));
            let settling = Settling::Open(name, kind, limits, key);
            return self.settle_operator(node, settling);
        }
        if unended.is_empty() {
            return Ok(());
        }
        let channel = unended[self.rng.index(unended.len())];
        let id = channel.id;
        let of = self.nodes[node].live.as_deref();
        let of = of.and_then(|live| live.core.ledger().account(account));
        let is_busy = of.is_some_and(|of| of.exposure().in_flight_count > 0);
        if channel.is_payment_refused() && self.rng.percent(40) {
            let alone = self.rng.percent(50);
            return self.settle_operator(node, Settling::Close(id, alone));
        }
        let is_asked = channel.phase == Phase::Offered || channel.change.is_some();
        let settling = match self.rng.below(20) {
            0..8 if is_asked => Settling::Accept(id),
            8..10 if is_asked => Settling::Decline(id),
            10 => Settling::Close(id, false),
            11 => Settling::Close(id, true),
            12..14 => {
                let (_, [ours, theirs]) = self.channel_limits(scale);
                let keeper = usize::from(channel.our_limit() == 0);
                let [ours, theirs] = limits(channel.terms.kind, [ours, theirs], keeper);
                Settling::Limits(id, [ours, theirs])
            }
            _ => {
                let amount = self.rng.magnitude(u32::from(scale) + 1);
                let amount = self.rng.percent(60).then_some(amount);
                let key = format!("{name} {}", self.rng.below(200));
                Settling::Manual(name, amount, key)
            }
        };
        if is_busy && matches!(settling, Settling::Close(..)) {
            self.trouble(Trouble::ClosedInFlight);
        }
        self.settle_operator(node, settling)
    }

    fn channel_limits(&mut self, scale: u8) -> (Kind, [u64; 2]) {
        let unit = 10_u64.pow(scale.into());
        let kind = self.rng.pick(&Kind::ALL);
        let drawn = [0, 0].map(|_| {
            self.rng
                .pick(&[unit / 1_000, unit / 10, 10 * unit, 1_000 * unit])
        });
        let keeper = self.rng.index(2);
        (kind, limits(kind, drawn, keeper))
    }

    /// What waits for an operator is decided, so that everything ends.
    pub(crate) fn channels_parked(&mut self, node: usize) -> Checked {
        for id in self.witness.closing(node) {
            self.settle_operator(node, Settling::Close(id, false))?;
        }
        Ok(())
    }

    // --- scripted neighbours ---

    /// A final statement that was signed too early is signed anew.
    pub(crate) fn speakers_parked(&mut self) {
        for edge in 0..self.speakers.len() {
            let Some(speaker) = &self.speakers[edge] else {
                continue;
            };
            let channels = speaker.channels.values();
            let parked = channels.filter(|of| of.phase == Phase::Closing && of.our_final.is_none());
            let parked: Vec<_> = parked.map(|of| of.id).collect();
            for id in parked {
                self.speaker_step(edge, id, Step::Close);
            }
        }
    }

    /// What a scripted neighbour does next.
    pub(crate) fn speak(&mut self, edge: usize) -> Checked {
        if self.speakers[edge].is_none() {
            return Ok(());
        }
        let delay_ns = match self.is_healed {
            true => 5 * S,
            false => self.rng.between(200, 1_500) * MS,
        };
        self.plan_in(delay_ns, Event::Speak { edge });
        if !self.is_healed {
            self.speak_act(edge);
            if !self.network.edges[edge].is_honest && self.rng.percent(50) {
                self.speak_lie(edge);
            }
        }
        self.speak_told(edge);
        Ok(())
    }

    fn speaker(&mut self, edge: usize) -> &mut Speaker {
        let speaker = self.speakers[edge].as_mut();
        speaker.expect("the caller saw that it speaks")
    }

    /// Sends a frame of its own.
    fn speak_frame(&mut self, edge: usize, bytes: &[u8], of: (ChannelId, u64)) {
        let prepare = PrepareBuilder {
            amount: 0,
            expires_at: wall(self.now_ns).plus_ms(MESSAGE_MS),
            condition: PEER_CONDITION,
            destination: Addr::new("peer.settle").expect("a valid address"),
            data: bytes,
        };
        let packet = prepare.encode().expect("frames are small");
        if let Some(key) = self.edge_ask(edge, &packet) {
            self.speaker(edge).asked.insert(key, of);
        }
    }

    /// Tells what waits, again after a while.
    fn speak_told(&mut self, edge: usize) {
        let now_ns = self.now_ns;
        let speaker = self.speaker(edge);
        let mut frames = Vec::new();
        for (id, channel) in &speaker.channels {
            let Some(told) = channel.outgoing() else {
                continue;
            };
            let told_ns = speaker.told_ns.entry(*id).or_default();
            if *told_ns == 0 || now_ns >= *told_ns + AGAIN_NS {
                *told_ns = now_ns;
                let frame = telling(channel, told.sequence, told.message.clone());
                frames.push((frame.encode(), (*id, told.sequence)));
            }
        }
        for (bytes, of) in frames {
            if speaker_remembers(self.speaker(edge), &bytes) {
                note!(self, "edge {edge} tells {} {}", of.0, of.1);
            }
            self.speak_frame(edge, &bytes, of);
        }
    }

    /// A step of its side of a channel; the witness knows it before anybody is told.
    fn speaker_step(&mut self, edge: usize, id: ChannelId, event: Step) -> Option<Answer> {
        let speaker = self.speaker(edge);
        let channel = speaker.channels.get(&id)?;
        let step = channel.step(event, &speaker.key).ok()?;
        self.speaker_put(edge, step.channel);
        step.answer
    }

    fn speaker_put(&mut self, edge: usize, channel: Channel) {
        let with = self.network.edges[edge].node;
        let entry = (with, channel.clone());
        self.witness.edge_channels.insert(channel.id, entry);
        let speaker = self.speaker(edge);
        let was = speaker.channels.get(&channel.id);
        let first = |channel: &Channel| channel.outgoing().map(|told| told.sequence);
        // Another message comes first: it is told at once.
        if was.and_then(first) != first(&channel) {
            speaker.told_ns.insert(channel.id, 0);
        }
        speaker.channels.insert(channel.id, channel);
    }

    /// Opens, pays, changes limits, closes.
    fn speak_act(&mut self, edge: usize) {
        let plan = &self.network.edges[edge];
        let account = self.witness.plan(plan.node);
        let account = account.account(account.id(&plan.name));
        let (asset, scale) = (account.asset(), account.scale);
        let speaker = self.speaker(edge);
        let Some(node_key) = speaker.node_key else {
            let frame = greeting(speaker.greeting());
            return self.speak_frame(edge, &frame.encode(), (ChannelId::NONE, 0));
        };
        let known = speaker.channels.len();
        let unended = speaker.channels.values().filter(|of| !of.phase.is_ended());
        let unended: Vec<_> = unended.cloned().collect();
        if known < CHANNELS_EACH && self.rng.percent(if unended.len() < 2 { 10 } else { 0 }) {
            let (kind, [opener, accepter]) = self.channel_limits(scale);
            let id = self.rng.bytes();
            let id = ChannelId(std::array::from_fn(|of| id[of]));
            let speaker = self.speaker(edge);
            let terms = Terms {
                kind,
                asset,
                opener: speaker.key.public(),
                accepter: node_key,
                limits: Limits {
                    opener,
                    accepter,
                    revision: 0,
                },
            };
            if let Ok(step) = Channel::propose(id, terms, &speaker.key) {
                self.speaker_put(edge, step.channel);
            }
            return;
        }
        if unended.is_empty() {
            return;
        }
        let channel = unended[self.rng.index(unended.len())].clone();
        let event = match self.rng.below(20) {
            0 => Step::Close,
            1 => Step::CloseAlone,
            2 => {
                let (_, drawn) = self.channel_limits(scale);
                let keeper = usize::from(channel.terms.limits.opener == 0);
                let [opener, accepter] = limits(channel.terms.kind, drawn, keeper);
                Step::Change { opener, accepter }
            }
            3..8 => Step::Accept,
            8 => {
                let reason = "not now".to_owned();
                Step::Decline { reason }
            }
            _ => {
                let room = channel.room();
                let amount = match self.rng.below(4) {
                    0 => room,
                    _ => self.rng.magnitude(u32::from(scale) + 1).min(room),
                };
                Step::Pay { amount }
            }
        };
        self.speaker_step(edge, channel.id, event);
    }

    /// The node says something to a scripted neighbour.
    pub(crate) fn speaker_hears(&mut self, edge: usize, to: ReplyTo, data: &[u8]) {
        let frame = Frame::parse(data).expect("nodes send what is a frame");
        let is_payment = matches!(&frame.body, Body::Message(message) if is_payment(message));
        // They are what a lie is worth most about.
        let percent = if is_payment { 70 } else { 25 };
        let is_honest = self.network.edges[edge].is_honest;
        let lies = !is_honest && !self.is_healed && self.rng.percent(percent);
        if self.speakers[edge].is_none() {
            return;
        }
        let (id, sequence) = (frame.channel, frame.sequence);
        let body = match frame.body {
            Body::Greeting(theirs) => {
                let speaker = self.speaker(edge);
                speaker.node_key = Some(theirs.key);
                Body::Greeting(speaker.greeting())
            }
            Body::Message(message) if lies => {
                self.witness.tally.lies += 1;
                self.trouble(Trouble::AnswerFalse);
                let body = self.speaker_lies(edge, id, sequence, message);
                let Some(body) = body else {
                    return;
                };
                body
            }
            Body::Message(message) => {
                if let Message::Propose { terms, signature } = &message
                    && !self.speaker(edge).channels.contains_key(&id)
                {
                    let key = &self.speaker(edge).key;
                    match Channel::offered(id, sequence, terms, signature, key) {
                        Ok(channel) => self.speaker_put(edge, channel),
                        Err(refusal) => {
                            let reason = refusal.to_string();
                            let body = Body::Answer(Answer::Refused { reason });
                            return self.speaker_answers(edge, to, id, frame.kind, sequence, body);
                        }
                    }
                }
                let received = Step::Received { sequence, message };
                let unknown = Answer::Unknown {
                    reason: "there is no such channel".to_owned(),
                };
                let answer = self.speaker_step(edge, id, received);
                Body::Answer(answer.unwrap_or(unknown))
            }
            Body::Answer(_) => panic!("a node asks an answer: {frame:?}"),
        };
        self.speaker_answers(edge, to, id, frame.kind, sequence, body);
    }

    fn speaker_answers(
        &mut self,
        edge: usize,
        to: ReplyTo,
        id: ChannelId,
        kind: Option<Kind>,
        sequence: u64,
        body: Body,
    ) {
        let known = self.speaker(edge).channels.get(&id);
        let frame = Frame {
            channel: id,
            kind,
            sequence,
            acknowledgement: known.map_or(0, |channel| channel.received),
            body,
        };
        let mut data = frame.encode();
        if !self.network.edges[edge].is_honest && !self.is_healed && self.rng.percent(5) {
            let kept = self.rng.index(data.len());
            data.truncate(kept);
        }
        let fulfill = FulfillBuilder {
            fulfillment: PEER_FULFILLMENT,
            data: &data,
        };
        let packet = match self.is_healed || self.rng.percent(95) {
            true => fulfill.encode().expect("frames are small").into(),
            false => reject(),
        };
        let packet = packet.to_vec();
        let delay_ns = self.rng.below(100) * MS;
        self.plan_in(delay_ns, Event::EdgeReply { to, packet });
    }

    /// A wrong answer to what a node says; none at all is one of them.
    fn speaker_lies(
        &mut self,
        edge: usize,
        id: ChannelId,
        sequence: u64,
        message: Message,
    ) -> Option<Body> {
        let reason = "says mallory".to_owned();
        let is_payment = is_payment(&message);
        let answer = match self.rng.below(if is_payment { 12 } else { 6 }) {
            0 => Answer::Expected,
            1 => Answer::Unknown { reason },
            2 => Answer::Later,
            3 => Answer::GreetFirst,
            4 => return None,
            5 => return Some(Body::Message(message)),
            // It could be taken, and is refused for good.
            _ => {
                let speaker = self.speaker(edge);
                let channel = speaker.channels.get(&id)?;
                let is_next = channel.received.checked_add(1) == Some(sequence);
                if !is_next {
                    return None;
                }
                let received = Step::Received { sequence, message };
                let step = channel.step(received, &speaker.key).ok()?;
                let refused = Channel {
                    received: step.channel.received,
                    received_digest: step.channel.received_digest,
                    refused: Some(reason.clone()),
                    ..channel.clone()
                };
                self.speaker_put(edge, refused);
                Answer::Refused { reason }
            }
        };
        Some(Body::Answer(answer))
    }

    /// What came back for a frame of a scripted neighbour.
    pub(crate) fn speaker_answered(&mut self, edge: usize, key: HopKey, packet: &[u8]) {
        let Some(speaker) = &mut self.speakers[edge] else {
            return;
        };
        let Some((id, sequence)) = speaker.asked.remove(&key) else {
            return;
        };
        let Ok(Reply::Fulfill(fulfill)) = Reply::parse(packet) else {
            return;
        };
        let frame = Frame::parse(fulfill.data()).expect("nodes answer with frames");
        let answer = match frame.body {
            Body::Greeting(theirs) => {
                speaker.node_key = Some(theirs.key);
                return;
            }
            Body::Answer(Answer::GreetFirst) => {
                let frame = greeting(speaker.greeting());
                return self.speak_frame(edge, &frame.encode(), (ChannelId::NONE, 0));
            }
            Body::Answer(answer) => answer,
            Body::Message(_) => panic!("a node answers with a message"),
        };
        // A lie has no number of its own.
        if sequence > 0 {
            let answered = Step::Answered {
                sequence,
                acknowledgement: frame.acknowledgement,
                answer,
            };
            self.speaker_step(edge, id, answered);
            self.speak_told(edge);
        }
    }

    // --- lies ---

    /// Says what is not so.
    fn speak_lie(&mut self, edge: usize) {
        self.witness.tally.lies += 1;
        let known: Vec<_> = self.speaker(edge).channels.values().cloned().collect();
        if !known.is_empty() && self.rng.percent(60) {
            let channel = known[self.rng.index(known.len())].clone();
            if let Some((trouble, message)) = self.speak_forged(edge, &channel) {
                // It is the next of its messages, to be refused for good.
                let mut forged = channel;
                if forged.outbox.len() < 4 {
                    self.trouble(trouble);
                    forged.sent += 1;
                    let sequence = forged.sent;
                    forged.outbox.push_back(Queued { sequence, message });
                    self.speaker_put(edge, forged);
                }
            }
            return;
        }
        // Only what was answered: of two messages with one number the node takes the first.
        let frames = self.speaker(edge).answered_frames();
        if frames.is_empty() {
            return;
        }
        let mut bytes = frames[self.rng.index(frames.len())].clone();
        let trouble = match self.rng.below(8) {
            // Once more.
            0 => Trouble::FrameAgain,
            1 => {
                let kept = self.rng.index(bytes.len());
                bytes.truncate(kept);
                Trouble::FrameCut
            }
            2 => {
                bytes.push(0);
                Trouble::FrameLonger
            }
            3 => {
                let at = self.rng.index(bytes.len());
                // Under a number of its own it might be taken.
                if !SEQUENCE.contains(&at) {
                    bytes[at] ^= 1 << self.rng.below(8);
                }
                Trouble::FrameBent
            }
            4 => {
                bytes[KIND] = UNKNOWN_KIND;
                Trouble::FrameUnknownKind
            }
            of => {
                let Ok(mut frame) = Frame::parse(&bytes) else {
                    return;
                };
                let trouble = match of {
                    5 => {
                        frame.channel.0[0] ^= 1;
                        Trouble::FrameStray
                    }
                    6 => {
                        let kinds = Kind::ALL.into_iter();
                        let mut others = kinds.filter(|kind| Some(*kind) != frame.kind);
                        frame.kind = others.next();
                        Trouble::FrameKind
                    }
                    // Long over, or far ahead.
                    _ => {
                        frame.sequence = match self.rng.percent(50) {
                            true => 0,
                            false => frame.sequence + 1_000,
                        };
                        Trouble::FrameOutOfOrder
                    }
                };
                bytes = frame.encode();
                trouble
            }
        };
        self.trouble(trouble);
        note!(self, "edge {edge} lies: {} bytes", bytes.len());
        self.speak_frame(edge, &bytes, (ChannelId::NONE, 0));
    }

    /// A message that does not follow from where the channel stands.
    fn speak_forged(&mut self, edge: usize, channel: &Channel) -> Option<(Trouble, Message)> {
        let key = &self.speakers[edge].as_ref()?.key;
        let said = |channel: Channel, event: Step| {
            let step = channel.step(event, key).ok()?;
            let last = step.channel.outbox.back()?;
            Some(last.message.clone())
        };
        // With as much room as a liar wants, and nothing under way.
        let free = Channel {
            phase: Phase::Open,
            taken: channel.ours.total,
            outbox: VecDeque::new(),
            theirs: Paid {
                total: u64::MAX / 2,
                ..channel.theirs
            },
            ..channel.clone()
        };
        let lie = self.rng.below(9);
        let drawn = self.rng.below(1_000);
        let is_symmetrical = channel.terms.kind == Kind::SymmetricalTrustline;
        let (trouble, message) = match lie {
            // An older claim, or the last one again.
            0..3 if channel.ours.total > 0 => {
                let mut older = free;
                let back = drawn.min(channel.ours.total - 1);
                older.ours.total = channel.ours.total - 1 - back;
                older.ours.count = older.ours.count.saturating_sub(1);
                older.taken = older.ours.total;
                let amount = if drawn.is_multiple_of(2) { 1 } else { 1 + back };
                (Trouble::ClaimLower, said(older, Step::Pay { amount }))
            }
            // More than the limits of both, old and new, leave.
            3 => {
                let limits = [Some(channel.terms.limits), channel.limits_before];
                let limits = limits.into_iter().flatten();
                let all = limits.map(|of| of.opener.saturating_add(of.accepter));
                let all = all.fold(0, u64::saturating_add);
                let total = channel.ours.total.max(channel.theirs.total);
                let amount = all.saturating_add(total).saturating_add(1 + drawn);
                (Trouble::ClaimAbove, said(free, Step::Pay { amount }))
            }
            4 => {
                let message = said(free, Step::Pay { amount: 1 + drawn });
                (Trouble::ClaimUnsigned, message.map(with_wrong_signature))
            }
            // Signed for another channel.
            5 => {
                let mut id = channel.id;
                id.0[0] ^= 1;
                let message = said(Channel { id, ..free }, Step::Pay { amount: 1 + drawn });
                (Trouble::ClaimForeign, message)
            }
            // Under terms that nobody agreed to.
            6 => {
                let mut other = free;
                other.terms.limits.revision += 7;
                let message = said(other, Step::Pay { amount: 1 + drawn });
                (Trouble::ClaimTerms, message)
            }
            // It ends with more than was paid.
            7 => {
                let mut other = free;
                other.ours.total += 1 + drawn;
                other.theirs.total = channel.theirs.total;
                (other.phase, other.our_final) = (Phase::Closing, None);
                (Trouble::FinalHigher, said(other, Step::Close))
            }
            _ if is_symmetrical => {
                let signature = Signature([7; 64]);
                (Trouble::AcceptStray, Some(Message::Accept { signature }))
            }
            _ => {
                let message = Message::ChangeAccept {
                    revision: 9,
                    signature: Signature([7; 64]),
                };
                (Trouble::AcceptStray, Some(message))
            }
        };
        message.map(|message| (trouble, message))
    }
}

/// Whether it is new to it.
fn speaker_remembers(speaker: &mut Speaker, bytes: &[u8]) -> bool {
    if speaker.frames.iter().any(|known| known == bytes) {
        return false;
    }
    if speaker.frames.len() >= FRAMES_MAX {
        speaker.frames.remove(0);
    }
    speaker.frames.push(bytes.to_vec());
    true
}

fn with_wrong_signature(mut message: Message) -> Message {
    match &mut message {
        Message::Claim { signature, .. } | Message::Order { signature, .. } => signature.0[0] ^= 1,
        Message::Credit { word, .. } => word.signature.0[0] ^= 1,
        Message::Propose { .. }
        | Message::Accept { .. }
        | Message::Decline { .. }
        | Message::Change { .. }
        | Message::ChangeAccept { .. }
        | Message::ChangeDecline { .. }
        | Message::Close
        | Message::Final { .. }
        | Message::CloseAlone => {}
    }
    message
}
