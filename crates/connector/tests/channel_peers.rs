//! One core and whatever the holder of an account says to it about channels.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use bytes::BytesMut;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use rialto_channel::{
    Answer, Body, Channel, ChannelId, ChannelKey, Event, Frame, Greeting, Kind, Limits as Most,
    MAGIC, Message, Phase, Terms, VERSION,
};
use rialto_connector::{
    Action, ChannelRequest, Connector, Effects, Input, LinkId, Now, Reason, RequestId, Settings,
    adjust::AdjustmentRequest,
    command::{CommandErrorKind, Made},
};
use rialto_ledger::{
    ACCOUNT_CHANNELS_MAX, AccountId, AccountSettings, AccountTerms, ChannelTerms, Limits, Lsn,
    Record, Relation, SettlementCause, SettlementState, SettlementTerms,
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
    journal: Vec<Vec<u8>>,
    /// Frames that the core sent and that are not answered.
    sent: Vec<(RequestId, Frame)>,
}

fn core() -> Connector {
    let settings = Settings::new("g.own".parse().unwrap());
    Connector::new(settings, [1; 32], ChaCha20Rng::from_seed([1; 32]))
}

impl Node {
    /// It accepts symmetrical trustlines over which the other side may owe `their_limit`.
    fn new(their_limit: u64) -> Self {
        let mut node = Self {
            core: core(),
            out: Effects::default(),
            now: Now {
                mono_ns: 1_000_000_000,
                wall: Timestamp::from_unix_ms(1_900_000_000_000),
            },
            account: AccountId(1),
            key: ChannelKey::from_seed(&[2; 32]),
            requests: 0,
            journal: Vec::new(),
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
                ilp_address: Some("g.peer".parse().unwrap()),
                limits: Limits {
                    balance_min: -1_000,
                    ..Limits::default()
                },
                settlement,
                ..AccountTerms::new(Relation::Peer, "USD/2".parse().unwrap())
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
        self.journal.extend(self.out.records().map(<[u8]>::to_vec));
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

    fn refuse(&mut self, request: RequestId) {
        let reject = rialto_packet::RejectBuilder {
            code: ErrorCode::T00_INTERNAL_ERROR,
            triggered_by: None,
            message: "",
            data: &[],
        };
        self.handle(Input::Reply {
            link: LINK,
            request,
            packet: reject.encode().unwrap().into(),
        });
    }

    fn terms(&self, limit: u64) -> Terms {
        Terms {
            kind: Kind::SymmetricalTrustline,
            asset: "USD/2".parse().unwrap(),
            opener: self.key.public(),
            accepter: self.core.channel_key(),
            limits: Most {
                opener: limit,
                accepter: 100,
                revision: 0,
            },
        }
    }

    /// Tells it of a channel.
    fn propose(&mut self, id: u8, terms: Terms) -> (Channel, Answer) {
        let step = Channel::propose(ChannelId([id; 16]), terms, &self.key);
        let mut channel = step.unwrap().channel;
        let answer = self.tell(&mut channel);
        (channel, answer)
    }

    /// Our side of a channel that was offered to it: we may owe `limit`.
    fn offer(&mut self, id: u8, limit: u64) -> Channel {
        let (mut channel, answer) = self.propose(id, self.terms(limit));
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

    /// Other terms of settlement.
    fn update(&mut self, change: impl FnOnce(&mut SettlementTerms)) {
        let account = self.core.ledger().account(self.account).unwrap();
        let mut settings = AccountSettings::clone(&account.settings);
        let mut terms = AccountTerms::clone(&settings.terms);
        change(&mut terms.settlement);
        settings.terms = terms.into();
        self.core.account_update(settings, &mut self.out).unwrap();
        self.performed();
    }

    /// The holder connects anew, and does not greet.
    fn reconnect(&mut self) {
        let (link, account) = (LINK, self.account);
        self.handle(Input::LinkDown { link });
        self.sent.clear();
        self.handle(Input::LinkUp { link, account });
    }

    /// What it says now: greetings, and messages.
    fn said(&mut self) -> (usize, usize) {
        self.handle(Input::Timeout);
        let said = self.sent.drain(..).map(|(_, frame)| frame.body);
        let (greetings, others): (Vec<_>, Vec<_>) =
            said.partition(|body| matches!(body, Body::Greeting(_)));
        (greetings.len(), others.len())
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

/// What a payment over a channel of ours was refused with leaves the account's settlements.
fn refused(node: &mut Node) -> Channel {
    let mut channel = node.offer(1, 100);
    node.adjust(70);
    node.core
        .settle_manual(node.now, "peer", Some(70), "a request", &mut node.out)
        .unwrap();
    node.performed();
    let (request, frame) = node.sent.pop().unwrap();
    channel.received = frame.sequence;
    let reason = "no".to_owned();
    let body = Body::Answer(Answer::Refused { reason });
    node.reply(request, &Frame { body, ..frame });
    channel
}

#[test]
fn a_refused_payment_is_owed_again_when_both_sign_an_end_without_it() {
    let mut node = Node::new(100);
    let mut channel = refused(&mut node);
    let balance = |node: &Node| node.core.ledger().account(node.account).unwrap().balance();
    assert_eq!(balance(&node), 0);
    node.close(&mut channel);
    assert_eq!(balance(&node), 70);
    let settlement = node.core.ledger().settlements().values().next().unwrap();
    assert_eq!(settlement.state, SettlementState::Cancelled);
    assert!(node.core.ledger().settlement_of(node.account).is_none());
}

#[test]
fn a_refused_payment_counts_when_the_channel_ends_alone() {
    let mut node = Node::new(100);
    let channel = refused(&mut node);
    let settlement = node.core.ledger().settlement_of(node.account).unwrap();
    let (id, is_parked) = (
        settlement.id,
        matches!(settlement.state, SettlementState::Parked { .. }),
    );
    assert!(is_parked);
    let error = node.core.settle_cancel(id, &mut node.out).unwrap_err();
    assert!(error.message.contains("close the channel"), "{error:?}");
    node.core
        .channel_close(node.now, channel.id, true, &mut node.out)
        .unwrap();
    let settlement = &node.core.ledger().settlements()[&id];
    assert_eq!(settlement.state, SettlementState::Accepted);
    let known = &node.core.ledger().channels()[&channel.id].channel;
    assert_eq!(known.owed(), 70);
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

/// Found by the simulator: the failure of a greeting that was void, as greetings had begun anew, counted
/// for the one after it, which was then forgotten while it was under way, and never sent again.
#[test]
fn what_comes_of_an_earlier_greeting_is_void() {
    let mut node = Node::new(0);
    let id = node.offer(1, 100).id;
    node.reconnect();
    node.core
        .channel_accept(node.now, id, &mut node.out)
        .unwrap();
    node.handle(Input::Timeout);
    let (earlier, frame) = node.sent.pop().unwrap();
    assert!(matches!(frame.body, Body::Greeting(_)));
    node.greet();
    let (told, frame) = node.sent.pop().unwrap();
    let body = Body::Answer(Answer::GreetFirst);
    node.reply(told, &Frame { body, ..frame });
    node.refuse(earlier);
    let mut greetings = 0;
    while greetings < 5 {
        node.wait();
        for (request, frame) in std::mem::take(&mut node.sent) {
            assert!(matches!(frame.body, Body::Greeting(_)));
            greetings += 1;
            node.wait(); // whatever is due while it is under way
            node.refuse(request);
        }
    }
}

#[test]
fn a_schedule_settles_over_a_channel() {
    let mut node = Node::new(100);
    node.adjust(70);
    node.update(|settlement| {
        settlement.every_s = Some(60);
        settlement.amount_min = 1;
    });
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

#[test]
fn nothing_is_told_or_taken_before_both_greeted() {
    let mut node = Node::new(0);
    let mut channel = node.offer(1, 100);
    node.reconnect();
    let id = channel.id;
    node.core
        .channel_accept(node.now, id, &mut node.out)
        .unwrap();
    node.performed();
    assert_eq!(node.said(), (1, 0));
    let change = Event::Change {
        opener: 50,
        accepter: 100,
    };
    channel.phase = Phase::Open;
    channel = channel.step(change, &node.key).unwrap().channel;
    assert_eq!(node.tell(&mut channel), Answer::GreetFirst);
    node.greet();
    assert_eq!(node.said(), (0, 1));
    assert_eq!(node.tell(&mut channel), Answer::Taken { word: None });
}

#[test]
fn whoever_has_something_to_say_greets_after_a_restart() {
    let mut node = Node::new(0);
    let id = node.offer(1, 100).id;
    node.core
        .channel_accept(node.now, id, &mut node.out)
        .unwrap();
    node.performed();
    node.core = core();
    for (index, bytes) in node.journal.iter().enumerate() {
        let record = Record::decode(bytes).unwrap();
        node.core.recover(Lsn(index as u64 + 1), record).unwrap();
    }
    node.core.recovered(&mut node.out);
    assert_eq!(node.core.channel_failure(id), None);
    node.handle(Input::Timeout);
    assert!(node.core.channel_failure(id).is_some(), "nobody is there");
}

#[test]
fn what_does_not_fit_the_account_is_refused_or_waits_for_an_operator() {
    let mut node = Node::new(100);
    let euros = Terms {
        asset: "EUR/2".parse().unwrap(),
        ..node.terms(10)
    };
    let (_, answer) = node.propose(1, euros);
    let Answer::Refused { reason } = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(reason, "the channel is in EUR/2, the account in USD/2");
    let other = Terms {
        kind: Kind::AsymmetricalTrustline,
        ..node.terms(10)
    };
    let other = Terms {
        limits: Most {
            accepter: 0,
            ..other.limits
        },
        ..other
    };
    let (mut channel, answer) = node.propose(2, other);
    assert_eq!(answer, Answer::Taken { word: None });
    node.listen(&mut channel);
    assert_eq!(channel.phase, Phase::Proposed, "of another kind");
    // A frame that says that the channel is of another kind than it is.
    channel.terms.kind = Kind::SymmetricalTrustline;
    channel = channel.step(Event::CloseAlone, &node.key).unwrap().channel;
    let answer = node.tell(&mut channel);
    assert!(matches!(answer, Answer::Unknown { .. }), "{answer:?}");
}

#[test]
fn an_account_has_only_so_many_channels_and_none_that_is_owed_over_is_forgotten() {
    let mut node = Node::new(0);
    let count = u8::try_from(ACCOUNT_CHANNELS_MAX).unwrap();
    let mut channels: Vec<_> = (1..=count).map(|id| node.offer(id, 1)).collect();
    let full = |node: &mut Node, id: u8| {
        let (_, answer) = node.propose(id, node.terms(1));
        let Answer::Refused { reason } = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(reason, "there are as many channels as there may be");
    };
    full(&mut node, count + 1);
    let alone = |node: &mut Node, channel: &mut Channel| {
        *channel = channel.step(Event::CloseAlone, &node.key).unwrap().channel;
        assert_eq!(node.tell(channel), Answer::Taken { word: None });
    };
    for channel in &mut channels {
        alone(&mut node, channel);
    }
    full(&mut node, count + 2);
    assert_eq!(node.core.ledger().channels().len(), ACCOUNT_CHANNELS_MAX);
}

#[test]
fn an_account_proposes_once() {
    let mut node = Node::new(0);
    node.update(|settlement| {
        let channel = settlement.channel.as_mut().unwrap();
        (channel.their_limit, channel.propose) = (10, true);
    });
    node.greet();
    let proposed = node.sent.iter().any(|(_, frame)| {
        let is_proposal = |body: &Body| matches!(body, Body::Message(Message::Propose { .. }));
        is_proposal(&frame.body)
    });
    assert!(proposed);
    node.reconnect();
    node.greet();
    assert_eq!(node.core.ledger().channels().len(), 1);
}

#[test]
fn an_answer_about_another_channel_answers_nothing() {
    let mut node = Node::new(100);
    let mut channel = node.offer(1, 100);
    node.adjust(70);
    let above = node
        .core
        .settle_manual(node.now, "peer", Some(101), "above", &mut node.out);
    assert!(above.is_err(), "more than the limit of the channel");
    let settled = node
        .core
        .settle_manual(node.now, "peer", Some(70), "once", &mut node.out);
    let (Made::New(id) | Made::Existing(id)) = settled.unwrap();
    node.performed();
    let (request, frame) = node.sent.pop().expect("the payment");
    let answer = Frame {
        channel: ChannelId([2; 16]),
        body: Body::Answer(Answer::Taken { word: None }),
        ..frame
    };
    node.reply(request, &answer);
    let state = |node: &Node| node.core.ledger().settlements()[&id].state.clone();
    assert_eq!(state(&node), SettlementState::Open);
    node.wait();
    node.listen(&mut channel);
    assert_eq!(state(&node), SettlementState::Accepted);
}

#[test]
fn what_an_operator_cannot_do_says_so() {
    let mut node = Node::new(0);
    let channel = node.offer(1, 100);
    let (now, id) = (node.now, channel.id);
    for reason in ["x".repeat(256), "a\nb".to_owned()] {
        let declined = node.core.channel_decline(now, id, &reason, &mut node.out);
        assert_eq!(declined.unwrap_err().kind, CommandErrorKind::Invalid);
    }
    let deleted = node.core.account_delete("peer", &mut node.out);
    let message = deleted.unwrap_err().message;
    assert!(message.ends_with("is offered: close it first"), "{message}");
    // A record that gives it to another account is of another journal.
    let known = &node.core.ledger().channels()[&id];
    let record = Record::ChannelPut {
        number: known.number + 1,
        account: known.account,
        channel: Box::new(known.channel.clone()),
        money: None,
        opening: None,
    };
    let lsn = Lsn(node.core.lsn().0 + 1);
    assert!(node.core.recover(lsn, record).is_err());
    node.core.drain(now, &mut node.out);
    let request = ChannelRequest {
        account: "peer".to_owned(),
        kind: Kind::SymmetricalTrustline,
        limit: 1,
        their_limit: 1,
        idempotency_key: "open".to_owned(),
    };
    let opened = node.core.channel_open(now, request, &mut node.out);
    let message = opened.unwrap_err().message;
    assert_eq!(message, "the node opens no channels now");
}
