//! One core and whatever the holder of an account says to it about channels.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use bytes::BytesMut;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use rialto_channel::{
    Answer, Body, Channel, ChannelId, ChannelKey, Event, Frame, Greeting, Kind, Limits as Most,
    MAGIC, Phase, Terms, VERSION,
};
use rialto_connector::{
    Action, Connector, Effects, Input, LinkId, Now, Reason, RequestId, Settings,
    adjust::AdjustmentRequest,
};
use rialto_ledger::{
    ACCOUNT_CHANNELS_MAX, AccountId, AccountSettings, AccountTerms, ChannelTerms, Limits, Relation,
    RouteExchange, SettlementCause, SettlementTerms,
};
use rialto_packet::{Addr, ErrorCode, PEER_CONDITION, Prepare, PrepareBuilder, Reply, Timestamp};

const LINK: LinkId = LinkId::Session {
    worker: 0,
    serial: 1,
};

/// The core, the account of the one who speaks to it, and that one's key.
struct Node {
    core: Connector,
    out: Effects,
    now: Now,
    account: AccountId,
    key: ChannelKey,
    requests: u64,
    /// Frames that the core sent and that are not answered.
    sent: Vec<(RequestId, Frame)>,
}

impl Node {
    /// It accepts symmetrical trustlines over which the other side may owe `their_limit`.
    fn new(their_limit: u64) -> Self {
        let mut node = Self {
            core: Connector::new(
                Settings::new("g.own".parse().unwrap()),
                [1; 32],
                ChaCha20Rng::from_seed([1; 32]),
            ),
            out: Effects::default(),
            now: Now {
                mono_ns: 1_000_000_000,
                wall: Timestamp::from_unix_ms(1_900_000_000_000),
            },
            account: AccountId(1),
            key: ChannelKey::from_seed(&[2; 32]),
            requests: 0,
            sent: Vec::new(),
        };
        node.connect(SettlementTerms {
            channel: Some(ChannelTerms {
                kind: Kind::SymmetricalTrustline,
                limit: 0,
                their_limit,
                propose: false,
            }),
            ..SettlementTerms::default()
        });
        node
    }

    /// A new account, whose holder connects and greets.
    fn connect(&mut self, settlement: SettlementTerms) {
        let settings = AccountSettings {
            name: "peer".to_owned(),
            incoming_tokens: Vec::new(),
            terms: AccountTerms {
                relation: Relation::Peer,
                asset: "USD/2".parse().unwrap(),
                ilp_address: Some("g.peer".parse().unwrap()),
                limits: Limits {
                    balance_min: -1_000,
                    ..Limits::default()
                },
                spread: None,
                http: None,
                btp: None,
                paused: false,
                routes: RouteExchange::default(),
                settlement,
            }
            .into(),
        };
        self.account = self.core.ledger().next_account();
        self.core.account_create(settings, &mut self.out).unwrap();
        let (link, account) = (LINK, self.account);
        self.handle(Input::LinkUp { link, account });
        self.greet();
    }

    fn greet(&mut self) {
        let greeting = Greeting {
            versions: vec![VERSION],
            kinds: vec![Kind::SymmetricalTrustline.code()],
            key: self.key.public(),
            channels: Vec::new(),
        };
        let answer = self.ask(&Frame {
            channel: ChannelId::NONE,
            kind: None,
            sequence: 0,
            acknowledgement: 0,
            body: Body::Greeting(greeting),
        });
        assert!(matches!(answer.body, Body::Greeting(_)));
    }

    /// Hands it something; what it answers to a packet is given back, what it sends is kept.
    fn handle(&mut self, input: Input) -> Option<Reply<bytes::Bytes>> {
        self.core.handle(self.now, input, &mut self.out);
        self.performed()
    }

    fn performed(&mut self) -> Option<Reply<bytes::Bytes>> {
        let mut answer = None;
        for effect in self.out.drain() {
            match effect.action {
                Action::Answer { packet, .. } => answer = Some(Reply::parse(packet).unwrap()),
                Action::Forward {
                    request, packet, ..
                } => {
                    let packet = Prepare::parse(&packet[..]).unwrap();
                    self.sent
                        .push((request, Frame::parse(packet.data()).unwrap()));
                }
                Action::Disconnect { .. } | Action::Report(_) | Action::Engine { .. } => {}
            }
        }
        answer
    }

    /// A message by `peer.settle`.
    fn message(&mut self, data: &[u8]) -> Reply<bytes::Bytes> {
        let packet = PrepareBuilder {
            amount: 0,
            expires_at: self.now.wall.plus_ms(30_000),
            condition: PEER_CONDITION,
            destination: Addr::new("peer.settle").unwrap(),
            data,
        };
        self.requests += 1;
        let answer = self.handle(Input::Prepare {
            account: self.account,
            link: LINK,
            request: RequestId(self.requests),
            packet: BytesMut::from(&packet.encode().unwrap()[..]),
        });
        answer.expect("every frame is answered at once")
    }

    fn ask(&mut self, frame: &Frame) -> Frame {
        match self.message(&frame.encode()) {
            Reply::Fulfill(fulfill) => Frame::parse(fulfill.data()).unwrap(),
            Reply::Reject(reject) => panic!("{reject:?}"),
        }
    }

    /// Tells it the message that waits on our side of a channel.
    fn tell(&mut self, channel: &mut Channel) -> Answer {
        let told = channel.outgoing().expect("something waits").clone();
        let answer = self.ask(&Frame {
            channel: channel.id,
            kind: Some(channel.terms.kind),
            sequence: told.sequence,
            acknowledgement: channel.received,
            body: Body::Message(told.message),
        });
        let Body::Answer(decided) = answer.body else {
            panic!("not an answer: {answer:?}");
        };
        let answered = Event::Answered {
            sequence: told.sequence,
            acknowledgement: answer.acknowledgement,
            answer: decided.clone(),
        };
        *channel = channel.step(answered, &self.key).unwrap().channel;
        decided
    }

    /// Takes and answers all that it has to say about our side of a channel.
    fn listen(&mut self, channel: &mut Channel) {
        while let Some((request, frame)) = self.sent.pop() {
            let body = match frame.body {
                Body::Message(message) if frame.channel == channel.id => {
                    let sequence = frame.sequence;
                    let received = Event::Received { sequence, message };
                    let step = channel.step(received, &self.key).unwrap();
                    *channel = step.channel;
                    Body::Answer(step.answer.unwrap())
                }
                Body::Message(_) | Body::Answer(_) | Body::Greeting(_) => continue,
            };
            self.reply(request, &Frame { body, ..frame });
        }
    }

    fn reply(&mut self, request: RequestId, frame: &Frame) {
        let data = &frame.encode();
        let fulfill = rialto_packet::FulfillBuilder {
            fulfillment: rialto_packet::PEER_FULFILLMENT,
            data,
        };
        self.handle(Input::Reply {
            link: LINK,
            request,
            packet: fulfill.encode().unwrap().into(),
        });
    }

    /// Our side of a channel that was offered to it: we may owe `limit`.
    fn offer(&mut self, id: u8, limit: u64) -> Channel {
        let terms = Terms {
            kind: Kind::SymmetricalTrustline,
            asset: "USD/2".parse().unwrap(),
            opener: self.key.public(),
            accepter: self.core.channel_key(),
            limits: Most {
                opener: limit,
                accepter: 100,
                revision: 0,
            },
        };
        let step = Channel::propose(ChannelId([id; 16]), terms, &self.key);
        let mut channel = step.unwrap().channel;
        let answer = self.tell(&mut channel);
        assert_eq!(answer, Answer::Taken { word: None });
        self.listen(&mut channel);
        channel
    }

    fn pay(&mut self, channel: &mut Channel, amount: u64) -> Answer {
        let paid = channel.step(Event::Pay { amount }, &self.key);
        *channel = paid.unwrap().channel;
        self.tell(channel)
    }

    /// Closes it in agreement.
    fn close(&mut self, channel: &mut Channel) {
        *channel = channel.step(Event::Close, &self.key).unwrap().channel;
        while channel.phase != Phase::Closed || channel.outgoing().is_some() {
            if channel.outgoing().is_some() {
                self.tell(channel);
            }
            self.listen(channel);
        }
    }

    /// Time goes on until something is due.
    fn wait(&mut self) {
        let due = self.core.poll_timeout().expect("something is due");
        let passed = due.saturating_sub(self.now.mono_ns);
        self.now.mono_ns += passed;
        let passed_ms = i64::try_from(passed.div_ceil(1_000_000)).unwrap();
        self.now.wall = self.now.wall.plus_ms(passed_ms);
        self.handle(Input::Timeout);
    }

    fn adjust(&mut self, amount: i128) {
        let request = AdjustmentRequest {
            account: "peer".to_owned(),
            amount,
            reason: "a test".to_owned(),
            idempotency_key: amount.to_string(),
        };
        let adjusted = self.core.account_adjust(self.now, request, &mut self.out);
        adjusted.unwrap();
    }
}

#[test]
fn what_begins_like_a_frame_and_is_none_is_refused_by_name() {
    let mut node = Node::new(100);
    let mut greeting_of_a_channel = MAGIC.to_vec();
    greeting_of_a_channel.push(9);
    let unasked = Frame {
        channel: ChannelId([1; 16]),
        kind: Some(Kind::SymmetricalTrustline),
        sequence: 1,
        acknowledgement: 0,
        body: Body::Answer(Answer::Later),
    };
    for data in [greeting_of_a_channel, unasked.encode()] {
        let Reply::Reject(reject) = node.message(&data) else {
            panic!("it was taken");
        };
        assert_eq!(reject.code(), ErrorCode::F00_BAD_REQUEST);
        assert!(reject.message().starts_with("channel.frame"));
    }
    let stats = node.core.stats().account(node.account).unwrap();
    assert_eq!(stats.refused[Reason::ChannelFrame as usize], 2);
}

#[test]
fn an_account_accepts_by_itself_up_to_one_limit_over_all_channels() {
    let mut node = Node::new(100);
    let mut first = node.offer(1, 60);
    assert_eq!(first.phase, Phase::Open);
    assert_eq!(
        node.offer(2, 41).phase,
        Phase::Proposed,
        "an operator decides"
    );
    assert_eq!(node.offer(3, 40).phase, Phase::Open);
    // What is owed over one that has ended counts.
    let mut node = Node::new(100);
    first = node.offer(1, 100);
    assert_eq!(node.pay(&mut first, 30), Answer::Taken { word: None });
    node.close(&mut first);
    assert_eq!(node.offer(2, 71).phase, Phase::Proposed);
    let mut second = node.offer(3, 70);
    assert_eq!(second.phase, Phase::Open);
    // And so does a limit that is raised.
    let raised = Event::Change {
        opener: 71,
        accepter: 100,
    };
    second = second.step(raised, &node.key).unwrap().channel;
    node.tell(&mut second);
    node.listen(&mut second);
    assert_eq!(second.terms.limits.opener, 70);
}

#[test]
fn a_channel_that_was_forgotten_and_comes_again_waits_as_long_as_its_payments_are_known() {
    let mut node = Node::new(100);
    let mut first = node.offer(1, 100);
    let again = first.clone();
    assert_eq!(node.pay(&mut first, 30), Answer::Taken { word: None });
    node.close(&mut first);
    node.adjust(-30);
    node.core.account_delete("peer", &mut node.out).unwrap();
    node.connect(SettlementTerms::default());
    let mut channel = Channel::propose(again.id, again.terms, &node.key)
        .unwrap()
        .channel;
    assert_eq!(node.tell(&mut channel), Answer::Later);
    assert!(node.core.ledger().channels().is_empty());
    let other = node.offer(2, 100);
    assert_eq!(other.phase, Phase::Proposed);
}

#[test]
fn what_was_noted_of_a_channel_is_forgotten_with_it() {
    let mut node = Node::new(100);
    let noted = |node: &Node, id: u8| node.core.channel_notes(ChannelId([id; 16])).count();
    let count = u8::try_from(ACCOUNT_CHANNELS_MAX).unwrap();
    for id in 1..=count + 1 {
        let mut channel = node.offer(id, 1);
        node.close(&mut channel);
    }
    assert_eq!(node.core.ledger().channels().len(), ACCOUNT_CHANNELS_MAX);
    node.offer(count + 2, 1);
    assert_eq!((noted(&node, 1), noted(&node, 2)), (0, 0));
    assert!(noted(&node, 3) > 0 && noted(&node, count + 2) > 0);
}

#[test]
fn whoever_forgets_greetings_at_once_is_greeted_at_a_pace() {
    let mut node = Node::new(100);
    node.offer(1, 100);
    let mut greetings = 0;
    let mut channel = node.offer(2, 1); // not accepted by itself, as the one before takes all
    assert_eq!(channel.phase, Phase::Proposed);
    let id = channel.id;
    let begun = node.now.mono_ns;
    node.core
        .channel_accept(node.now, id, &mut node.out)
        .unwrap();
    node.performed();
    for _ in 0..20 {
        let Some((request, frame)) = node.sent.pop() else {
            node.wait();
            continue;
        };
        let body = match frame.body {
            Body::Greeting(_) => {
                greetings += 1;
                Body::Greeting(Greeting {
                    versions: vec![VERSION],
                    kinds: Vec::new(),
                    key: node.key.public(),
                    channels: Vec::new(),
                })
            }
            Body::Message(_) | Body::Answer(_) => Body::Answer(Answer::GreetFirst),
        };
        node.reply(request, &Frame { body, ..frame });
    }
    assert!(greetings > 3);
    assert!(node.now.mono_ns - begun >= (greetings - 1) * 1_000_000_000);
    channel = node.core.ledger().channels()[&id].channel.clone();
    assert!(
        channel.outgoing().is_some(),
        "it is told again, and never given up"
    );
}

#[test]
fn a_schedule_settles_over_a_channel() {
    let mut node = Node::new(100);
    node.adjust(70);
    let mut settings =
        AccountSettings::clone(&node.core.ledger().account(node.account).unwrap().settings);
    let mut terms = AccountTerms::clone(&settings.terms);
    terms.settlement.every_s = Some(60);
    terms.settlement.amount_min = 1;
    settings.terms = terms.into();
    node.core.account_update(settings, &mut node.out).unwrap();
    let mut channel = node.offer(1, 100);
    node.wait();
    node.listen(&mut channel);
    assert_eq!(channel.theirs.total, 70);
    let made: Vec<_> = node.core.ledger().settlements().values().collect();
    assert_eq!(made.len(), 1);
    assert_eq!(
        (made[0].cause, made[0].amount),
        (SettlementCause::Schedule, 70)
    );
}

#[test]
fn a_message_for_somebody_elses_channel_is_not_known() {
    let mut node = Node::new(100);
    let mut first = node.offer(1, 100);
    let theirs = node.account;
    let mut settings =
        AccountSettings::clone(&node.core.ledger().account(theirs).unwrap().settings);
    settings.name = "other".to_owned();
    let mut terms = AccountTerms::clone(&settings.terms);
    terms.ilp_address = Some("g.other".parse().unwrap());
    settings.terms = terms.into();
    node.account = node.core.ledger().next_account();
    node.core.account_create(settings, &mut node.out).unwrap();
    node.greet();
    let answer = node.pay(&mut first, 30);
    assert!(matches!(answer, Answer::Unknown { .. }), "{answer:?}");
    assert_eq!(node.core.ledger().account(theirs).unwrap().balance(), 0);
}
