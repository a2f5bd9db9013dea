//! One I/O thread: its connections, and what the core wants done with them.

use std::{
    cell::{Cell, Ref, RefCell},
    collections::HashMap,
    net::IpAddr,
    rc::{Rc, Weak},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use rialto_btp::session;
use rialto_connector::{Action, Input, LinkFailure, LinkId, Paid, Reason, RequestId};
use rialto_ledger::AccountId;
use rialto_packet::{Prepare, Reply};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::spawn_local,
};

use crate::{
    btp::{End, Outbox},
    callback::{self, Arrival, CallbackRefusal, Callbacks, Delivery, Id},
    clock::{Clock, wall},
    dial,
    directory::{AuthCounters, Directory, Visitor},
    http_client::{HttpClient, Shared},
    http2_server::Responder,
    inbox::Inbox,
    newcomers::{Newcomer, NewcomerCounters, NewcomerLimits, Newcomers},
    pace::Pace,
    scratch::Scratch,
    server::{self, GREETING_PREFIX, Greeting, Permit},
    spsp::SpspAnswer,
    tls::{ClientTls, ServerTls},
    waiting::{Respond, Waiting, number_of_unattended, unattended},
};

/// What a worker is made of.
pub struct WorkerConfig {
    /// Its number; stands in the [`LinkId`]s of its connections.
    pub id: u16,
    /// The node's.
    pub clock: Clock,
    /// The accounts as they are at present.
    pub directory: watch::Receiver<Arc<Directory>>,
    /// Shared by all workers.
    pub auth_counters: Arc<AuthCounters>,
    /// Shared by all workers.
    pub callbacks: Arc<Callbacks>,
    /// How servers are verified at present.
    pub tls: watch::Receiver<ClientTls>,
    /// Times of BTP sessions.
    pub btp: session::Settings,
    /// Most connections that are open to this worker at a time. One more is closed at once.
    pub connections_max: usize,
    /// Most of them whose client has not yet authenticated.
    pub newcomers: NewcomerLimits,
    /// Shared by all workers.
    pub newcomer_counters: Arc<NewcomerCounters>,
    /// Answers SPSP queries.
    pub spsp: Box<SpspAnswer>,
    /// Answers nodes that are not yet neighbours.
    pub greeting: Box<Greeting>,
    /// One more path at which they are answered.
    pub greeting_path: Option<String>,
    /// Whether a BTP session of the account stands, on whatever worker and whoever opened it.
    pub has_session: Box<dyn Fn(AccountId) -> bool>,
}

/// The links of one thread. Everything runs on the `LocalSet` that it is used in.
pub struct Worker {
    this: Weak<Self>,
    config: WorkerConfig,
    /// The last value of the configuration's receiver.
    directory: RefCell<Arc<Directory>>,
    directory_changes: RefCell<watch::Receiver<Arc<Directory>>>,
    tls_changes: RefCell<watch::Receiver<ClientTls>>,
    inbox: Inbox,
    scratch: Scratch,
    newcomers: Rc<Newcomers>,
    waiting: Rc<Waiting>,
    /// Packets in callback mode that the core has not yet answered.
    unanswered: RefCell<HashMap<u64, Unanswered>>,
    unanswered_serial: Cell<u64>,
    undelivered_lines: RefCell<HashMap<AccountId, Pace>>,
    http: RefCell<HashMap<AccountId, Rc<HttpClient>>>,
    sessions: RefCell<HashMap<u32, Rc<Outbox>>>,
    /// When the next line that a session is down, or up, is due.
    session_lines: RefCell<HashMap<AccountId, [Pace; 2]>>,
    /// When the next line that a caller is unknown is due.
    caller_lines: Pace,
    serial: Cell<u32>,
    connections: Cell<usize>,
    unfinished: Rc<Unfinished>,
    draining: Cell<bool>,
    drained: Notify,
}

/// Kept by whatever must not be cut off when the node stops.
pub(crate) struct Unfinished;

/// Where a token is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// With a packet by ILP over HTTP.
    Http,
    /// In the first frame of a BTP session.
    Btp,
    /// With the question how we see the link.
    Greeting,
}

impl Door {
    /// As it would be asked for.
    fn path(self, named: Option<&str>) -> String {
        let account = named.map_or_else(String::new, |name| format!("/accounts/{name}"));
        match self {
            Self::Http => format!("{account}/ilp"),
            Self::Btp => format!("{account}/ilp/btp"),
            Self::Greeting => GREETING_PREFIX.to_owned(),
        }
    }
}

/// Where the answer to a packet in callback mode goes.
struct Unanswered {
    account: AccountId,
    path: PathAndQuery,
    id: Id,
    until_ns: u64,
}

impl Worker {
    /// A worker without connections.
    pub fn new(config: WorkerConfig) -> Rc<Self> {
        let mut directory_changes = config.directory.clone();
        let directory = directory_changes.borrow_and_update().clone();
        let mut tls_changes = config.tls.clone();
        tls_changes.mark_unchanged();
        let newcomers = Newcomers::new(config.newcomers, Arc::clone(&config.newcomer_counters));
        Rc::new_cyclic(|this| Self {
            this: this.clone(),
            config,
            directory: RefCell::new(directory),
            directory_changes: RefCell::new(directory_changes),
            tls_changes: RefCell::new(tls_changes),
            inbox: Inbox::default(),
            scratch: Scratch::default(),
            newcomers: Rc::new(newcomers),
            waiting: Rc::default(),
            unanswered: RefCell::default(),
            unanswered_serial: Cell::new(0),
            undelivered_lines: RefCell::default(),
            http: RefCell::default(),
            sessions: RefCell::default(),
            session_lines: RefCell::default(),
            caller_lines: Pace::default(),
            serial: Cell::new(0),
            connections: Cell::new(0),
            unfinished: Rc::new(Unfinished),
            draining: Cell::new(false),
            drained: Notify::new(),
        })
    }

    /// Where its inputs come out.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Does what the core wants. Where a connection has many packets at a time, nothing is written to it before the
    /// caller yields, so that everything from one turn is written at once; where it has one, that is written now.
    ///
    /// Actions on local links, on links of other workers, what engines are asked, and reports are not
    /// its business and ignored.
    pub fn perform(&self, action: Action) {
        match action {
            Action::Forward {
                link,
                request,
                packet,
                deadline_ns,
            } => match link {
                LinkId::Http(account) => self.forward_http(account, request, packet, deadline_ns),
                LinkId::Session { .. } => self.forward_session(link, request, &packet),
                LinkId::Local | LinkId::Waiting { .. } => {}
            },
            Action::Answer {
                link,
                request,
                packet,
                paid,
            } => {
                let delivered = match link {
                    LinkId::Waiting { worker } if worker == self.config.id => {
                        match number_of_unattended(request) {
                            None => self.waiting.answer(request, packet),
                            Some(number) => return self.call_back(number, packet, paid),
                        }
                    }
                    LinkId::Session { .. } => self
                        .session(link)
                        .is_some_and(|outbox| outbox.reply(request, &packet, paid)),
                    LinkId::Waiting { .. } | LinkId::Local | LinkId::Http(_) => true,
                };
                if let (false, Some(paid)) = (delivered, paid) {
                    self.inbox.push(Input::Undelivered(paid));
                }
            }
            Action::Disconnect { link } => {
                if let Some(outbox) = self.session(link) {
                    outbox.end(End::Session(session::CloseReason::Superseded));
                }
            }
            Action::Engine { .. } | Action::Report(_) => {}
        }
    }

    /// Accepts connections, with TLS if there are settings for it: each with those of its time. Resolves
    /// once the worker drains.
    pub async fn serve(
        self: Rc<Self>,
        listener: TcpListener,
        tls: Option<watch::Receiver<ServerTls>>,
    ) {
        server::serve(self, listener, tls).await;
    }

    /// Keeps up a BTP connection for every account that has settings for it. To be called on one
    /// worker only. Resolves once the directory's sender is gone.
    pub async fn dial(self: Rc<Self>) {
        dial::dial(self).await;
    }

    /// Accepts no more connections and opens none. Requests that are in flight may finish.
    pub fn drain(&self) {
        self.draining.set(true);
        self.drained.notify_waiters();
    }

    /// Ends what is open, once the caller yields: what was answered still leaves.
    pub fn close(&self) {
        self.drain();
        for outbox in self.sessions.borrow().values() {
            outbox.end(End::Leaving);
        }
    }

    /// How many connections are open: all that came to this worker, and the BTP sessions that it
    /// opened.
    pub fn connection_count(&self) -> usize {
        self.connections.get()
    }

    /// How many answers are on their way out, and connections that end in good order.
    pub fn unfinished_count(&self) -> usize {
        Rc::strong_count(&self.unfinished) - 1
    }

    /// To be kept as long as something must not be cut off.
    pub(crate) fn unfinished(&self) -> Rc<Unfinished> {
        Rc::clone(&self.unfinished)
    }

    fn forward_http(
        &self,
        account: AccountId,
        request: RequestId,
        packet: Bytes,
        deadline_ns: u64,
    ) {
        match self.http_client(account) {
            Some(client) => client.send(request, packet, deadline_ns),
            None => self.inbox.push(Input::Failed {
                link: LinkId::Http(account),
                request,
                failure: LinkFailure::Closed,
            }),
        }
    }

    /// What packets to the account go through, if it has a URL.
    pub(crate) fn http_client(&self, account: AccountId) -> Option<Rc<HttpClient>> {
        // Before the clients are borrowed, because it may let go of some.
        let directory = self.directory();
        let clients = &mut *self.http.borrow_mut();
        let mut tls_changes = self.tls_changes.borrow_mut();
        if tls_changes.has_changed().unwrap_or(false) {
            // New connections meet what is new; what is in flight goes on.
            tls_changes.mark_unchanged();
            clients.clear();
        }
        if let Some(client) = clients.get(&account) {
            return Some(Rc::clone(client));
        }
        let peer = directory
            .account(account)
            .and_then(|of| of.http().cloned())?;
        let config = &self.config;
        let shared = Shared {
            tls: config.tls.borrow().to_neighbour(&peer.tls_pins),
            clock: config.clock,
            inbox: self.inbox.clone(),
            scratch: self.scratch.clone(),
            callbacks: Arc::clone(&config.callbacks),
        };
        let client = HttpClient::new(account, directory.name_of(account), peer, shared);
        clients.insert(account, Rc::clone(&client));
        Some(client)
    }

    /// Where an answer may be sent that the account asks to have sent to `url`. `None`: the account has
    /// no URL of its own, so that it can only be answered at once.
    pub(crate) fn callback_path(
        &self,
        account: AccountId,
        url: &[u8],
    ) -> Option<Result<PathAndQuery, CallbackRefusal>> {
        let directory = self.directory();
        let peer = directory.account(account)?.http().cloned()?;
        let path = callback::path_on(&peer, url).ok_or(CallbackRefusal::Url);
        Some(path.inspect_err(|why| self.config.callbacks.count(*why)))
    }

    /// Gives a packet in callback mode to the core. One that came before is not given again: it gets
    /// the answer that it had, or will have.
    pub(crate) fn packet_for_callback(
        &self,
        account: AccountId,
        id: &[u8],
        path: PathAndQuery,
        packet: BytesMut,
    ) -> Result<(), CallbackRefusal> {
        let accepted = self.accept_for_callback(account, id, path, packet);
        accepted.inspect_err(|why| self.config.callbacks.count(*why))
    }

    fn accept_for_callback(
        &self,
        account: AccountId,
        id: &[u8],
        path: PathAndQuery,
        packet: BytesMut,
    ) -> Result<(), CallbackRefusal> {
        let id = Id::parse(id).ok_or(CallbackRefusal::Id)?;
        let prepare = Prepare::parse(&packet[..]).map_err(|_| CallbackRefusal::Prepare)?;
        let life_ms = prepare.expires_at().unix_ms() - wall().unix_ms();
        let now_ns = self.clock().now_ns();
        let until_ns = callback::remember_until_ns(life_ms, now_ns);
        let callbacks = &self.config.callbacks;
        match callbacks.receive(account, id, &packet, until_ns, now_ns)? {
            Arrival::New => {
                let number = self.unanswered_serial.get();
                self.unanswered_serial.set(number + 1);
                let unanswered = Unanswered {
                    account,
                    path,
                    id,
                    until_ns,
                };
                self.unanswered.borrow_mut().insert(number, unanswered);
                self.prepare(account, unattended(number), packet);
            }
            Arrival::Again => {}
            // What is lost if it does not arrive was counted the first time.
            Arrival::Answered(packet) => self.deliver(Delivery {
                account,
                path,
                id,
                packet,
                paid: None,
                until_ns,
            }),
        }
        Ok(())
    }

    /// The core's answer to a packet in callback mode.
    fn call_back(&self, number: u64, packet: Bytes, paid: Option<Paid>) {
        let unanswered = self.unanswered.borrow_mut().remove(&number);
        let Some(unanswered) = unanswered else {
            return; // the core answers once
        };
        let Unanswered {
            account,
            path,
            id,
            until_ns,
        } = unanswered;
        self.config.callbacks.keep(account, id, &packet);
        self.deliver(Delivery {
            account,
            path,
            id,
            packet,
            paid,
            until_ns,
        });
    }

    fn deliver(&self, delivery: Delivery) {
        let (worker, unfinished) = (Weak::clone(&self.this), self.unfinished());
        spawn_local(async move {
            delivery.run(worker).await;
            drop(unfinished);
        });
    }

    /// An answer in callback mode did not arrive. The books have what it says.
    pub(crate) fn undelivered(&self, account: AccountId, paid: Option<Paid>, why: &str) {
        let mut lines = self.undelivered_lines.borrow_mut();
        if let Some(held_back) = lines.entry(account).or_default().due(self.clock().now_ns()) {
            let amount = paid.map_or(0, |paid| paid.amount);
            let account = self.config.directory.borrow().name_of(account);
            tracing::warn!(
                account,
                amount,
                why,
                held_back,
                "an answer could not be delivered to the peer's callback URL"
            );
        }
        if let Some(paid) = paid {
            self.inbox.push(Input::Undelivered(paid));
        }
    }

    /// An answer of a peer in callback mode.
    pub(crate) fn answered_by_callback(
        &self,
        account: AccountId,
        id: Option<&[u8]>,
        packet: Bytes,
    ) -> Result<(), CallbackRefusal> {
        let callbacks = &self.config.callbacks;
        let answered = || {
            let id = id.and_then(Id::parse).ok_or(CallbackRefusal::Id)?;
            Reply::parse(&packet[..]).map_err(|_| CallbackRefusal::Reply)?;
            callbacks.answer(account, id, self.clock().now_ns())
        };
        let request = answered().inspect_err(|why| callbacks.count(*why))?;
        self.inbox.push(Input::Reply {
            link: LinkId::Http(account),
            request,
            packet,
        });
        Ok(())
    }

    fn forward_session(&self, link: LinkId, request: RequestId, packet: &[u8]) {
        let session = self.session(link).ok_or(LinkFailure::Closed);
        if let Err(failure) = session.and_then(|outbox| outbox.prepare(request, packet)) {
            self.inbox.push(Input::Failed {
                link,
                request,
                failure,
            });
        }
    }

    fn session(&self, link: LinkId) -> Option<Rc<Outbox>> {
        match link {
            LinkId::Session { worker, serial } if worker == self.config.id => {
                self.sessions.borrow().get(&serial).cloned()
            }
            LinkId::Session { .. } | LinkId::Local | LinkId::Http(_) | LinkId::Waiting { .. } => {
                None
            }
        }
    }

    /// The accounts as they are now. Clients of peers that changed are let go; what they have in flight
    /// goes on.
    fn directory(&self) -> Ref<'_, Directory> {
        let mut changes = self.directory_changes.borrow_mut();
        if changes.has_changed().unwrap_or(false) {
            let directory = changes.borrow_and_update().clone();
            self.http.borrow_mut().retain(|id, client| {
                let account = directory.account(*id);
                account.as_ref().and_then(|account| account.http()) == Some(client.peer())
            });
            self.session_lines
                .borrow_mut()
                .retain(|id, _| directory.account(*id).is_some());
            *self.directory.borrow_mut() = directory;
        }
        Ref::map(self.directory.borrow(), |directory| &**directory)
    }

    /// For logs.
    pub(crate) fn name_of(&self, account: AccountId) -> String {
        self.directory().name_of(account)
    }

    /// Whose token or key it is; failures are counted, and who presents one that opens nothing is remembered.
    pub(crate) fn authenticate(
        &self,
        token: Option<&[u8]>,
        named: Option<&str>,
        door: Door,
        permit: &Permit,
    ) -> Result<AccountId, Reason> {
        let now_ms = wall().unix_ms();
        let directory = self.directory();
        let found = directory.authenticate(token, permit.key(), named, now_ms);
        let found = found.map(|known| known.account);
        found.inspect_err(|reason| self.not_recognised(*reason, token, named, door, permit))
    }

    /// Counts it, and remembers who presents a token that opens nothing.
    fn not_recognised(
        &self,
        reason: Reason,
        token: Option<&[u8]>,
        named: Option<&str>,
        door: Door,
        permit: &Permit,
    ) {
        let counters = &self.config.auth_counters;
        counters.count(reason);
        if let (Reason::AuthUnknownToken, Some(token)) = (reason, token)
            && let Some(address) = permit.address()
        {
            let path = door.path(named);
            let now_ms = wall().unix_ms();
            let new = counters.callers.note(token, address, &path, now_ms);
            if new.is_some()
                && let Some(held_back) = self.caller_lines.due(self.clock().now_ns())
            {
                let message =
                    "a caller presents a token that opens nothing: see `rialto peer callers`";
                tracing::info!(%address, held_back, "{message}");
            }
        }
    }

    /// Whether nodes that are not yet neighbours are answered at this path, beside the usual ones.
    pub(crate) fn greets_at(&self, path: &str) -> bool {
        self.config.greeting_path.as_deref() == Some(path)
    }

    /// Who sends packets by HTTP, and is likely to show the same token again.
    pub(crate) fn recognise(
        &self,
        visitor: &mut Visitor,
        token: Option<&[u8]>,
        named: Option<&str>,
        permit: &Permit,
    ) -> Result<AccountId, Reason> {
        let now_ms = || wall().unix_ms();
        let directory = self.directory();
        let shown = token.unwrap_or_default();
        if let Some(account) = visitor.recall(shown, named, directory.version(), now_ms) {
            return Ok(account);
        }
        let found = directory.authenticate(token, permit.key(), named, now_ms());
        let found = found.inspect_err(|reason| {
            self.not_recognised(*reason, token, named, Door::Http, permit);
        })?;
        visitor.learn(shown, named, found);
        Ok(found.account)
    }

    /// Gives a packet from an HTTP client to the core, and waits for the answer. When this future is
    /// dropped the packet goes its way all the same, and its answer finds nobody.
    pub(crate) async fn packet(&self, account: AccountId, packet: BytesMut) -> Bytes {
        let answer = self.waiting.open();
        self.prepare(account, answer.request(), packet);
        answer.await
    }

    /// Gives a packet from a connection of HTTP/1.1 to the core; the answer goes straight to the connection,
    /// unless [`Self::forget`] comes first.
    pub(crate) fn packet_on_connection(
        &self,
        account: AccountId,
        packet: BytesMut,
        connection: Rc<dyn Respond>,
    ) -> RequestId {
        let request = self.waiting.open_connection(connection);
        self.prepare(account, request, packet);
        request
    }

    fn prepare(&self, account: AccountId, request: RequestId, packet: BytesMut) {
        self.inbox.push(Input::Prepare {
            account,
            link: LinkId::Waiting {
                worker: self.config.id,
            },
            request,
            packet,
        });
    }

    /// The connection is gone. Its packet goes its way all the same, and its answer finds nobody.
    pub(crate) fn forget(&self, request: RequestId) {
        self.waiting.forget(request);
    }

    /// Gives a packet from a stream of HTTP/2 to the core; the answer goes straight to the stream.
    pub(crate) fn packet_on_stream(
        &self,
        account: AccountId,
        packet: BytesMut,
        responder: Responder,
    ) {
        self.prepare(account, self.waiting.open_stream(responder), packet);
    }

    /// Whether to write now that a session of the account is up, or down, and how many lines were held
    /// back before: a peer can connect as often as it likes.
    pub(crate) fn session_line(&self, account: AccountId, is_up: bool) -> Option<u64> {
        let mut lines = self.session_lines.borrow_mut();
        lines.entry(account).or_default()[usize::from(is_up)].due(self.clock().now_ns())
    }

    pub(crate) fn register_session(&self, outbox: Rc<Outbox>) -> LinkId {
        let serial = self.serial.get();
        // After 2^32 sessions the process has lived too long to keep its promise.
        self.serial
            .set(serial.checked_add(1).expect("fewer than 2^32 sessions"));
        self.sessions.borrow_mut().insert(serial, outbox);
        LinkId::Session {
            worker: self.config.id,
            serial,
        }
    }

    pub(crate) fn forget_session(&self, link: LinkId) {
        if let LinkId::Session { serial, .. } = link {
            self.sessions.borrow_mut().remove(&serial);
        }
    }

    /// Room for one more connection, of somebody who has yet to say who it is.
    pub(crate) fn permit(self: &Rc<Self>, address: IpAddr) -> Option<Rc<Permit>> {
        (self.connections.get() < self.config.connections_max).then(|| {
            let newcomer = self.newcomers.enter(address);
            Rc::new(self.count(Some(newcomer), Some(address)))
        })
    }

    /// Counts a connection for which there is always room.
    pub(crate) fn count_connection(self: &Rc<Self>) -> Permit {
        self.count(None, None)
    }

    fn count(self: &Rc<Self>, newcomer: Option<Newcomer>, address: Option<IpAddr>) -> Permit {
        self.connections.set(self.connections.get() + 1);
        Permit::new(Rc::clone(self), newcomer, address)
    }

    pub(crate) fn connection_ended(&self) {
        self.connections.set(self.connections.get() - 1);
    }

    pub(crate) async fn drained(&self) {
        // Registered before the flag is looked at, so that no call is missed.
        let drained = self.drained.notified();
        if !self.draining.get() {
            drained.await;
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// What connections read into.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    pub(crate) fn clock(&self) -> Clock {
        self.config.clock
    }

    pub(crate) fn btp_settings(&self) -> session::Settings {
        self.config.btp
    }

    pub(crate) fn tls(&self) -> ClientTls {
        self.config.tls.borrow().clone()
    }

    /// Whether clients are asked for a certificate.
    pub(crate) fn asks_for_certificates(&self) -> bool {
        self.directory().has_pins()
    }

    pub(crate) fn has_session(&self, account: AccountId) -> bool {
        (self.config.has_session)(account)
    }

    pub(crate) fn spsp(&self) -> &SpspAnswer {
        &*self.config.spsp
    }

    pub(crate) fn greeting(&self) -> &Greeting {
        &*self.config.greeting
    }

    pub(crate) fn directory_changes(&self) -> watch::Receiver<Arc<Directory>> {
        self.config.directory.clone()
    }
}
