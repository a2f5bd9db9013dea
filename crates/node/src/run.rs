//! The whole life of a node: bind, recover, serve, drain.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    pin::pin,
    process,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use http::HeaderValue;
use parking_lot::RwLock;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use rialto_admin::{Peering, Scopes, Token};
use rialto_btp::session;
use rialto_connector::{Action, Connector, Effects, Settings};
use rialto_journal::{FileDisk, Journal, JournalError, Options, Replay};
use rialto_ledger::{Lsn, Record, TokenHash};
use rialto_links::{
    AuthCounters, ClientTls, Greeting, Identity, NewcomerLimits, ServerTls, SpspAnswer, SpspQuery,
    SpspRefusal, TlsError, WorkerConfig, engine_client::AccountingToken, hash_token,
};
use rialto_stream::spsp;
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use thiserror::Error;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc, watch},
};
use tracing::{error, info, warn};

use crate::{
    config::{self, Config, ConfigError, Durability, LimitsConfig, Loaded},
    engines,
    handle::Handle,
    inspect, log, open_files, rate_feed,
    secrets::{NodeSecret, SecretError, random, read_private},
    shell::Shell,
    threads,
};

/// Where a running node says how it is reached, in its data folder.
pub const ENDPOINTS_FILE: &str = "endpoints.json";

/// Connections that may wait to be accepted, unless the operating system allows fewer.
const BACKLOG: i32 = 4_096;

/// The system's number of the signal that a file has become too large.
const SIGXFSZ: i32 = 25;

/// How often a drain looks whether everything was answered.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// How a running node is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The node listener.
    pub node: SocketAddr,
    /// The admin API.
    pub admin: SocketAddr,
    /// Where settlement engines report, if they can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settlement: Option<SocketAddr>,
    /// Where accounting systems ask us to settle, if they can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<SocketAddr>,
    /// The process.
    pub pid: u32,
}

/// Why a node does not start, or stopped badly.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Another value in the configuration cannot be used.
    #[error("{key}: {message}")]
    Value {
        /// The key to change.
        key: &'static str,
        /// What is wrong.
        message: String,
    },
    /// A port cannot be listened on.
    #[error("{key}: cannot listen on {address}: {source}")]
    Listen {
        /// The key to change.
        key: &'static str,
        /// The address in it.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The data folder cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The operating system refused something.
    #[error("cannot {what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The journal failed while the node ran.
    #[error("the journal failed while the node ran: the log says why")]
    Failed,
}

impl RunError {
    /// The exit code of conventions for services: 78 configuration, 69 unavailable, 1 else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Secret(_) | Self::Value { .. } => 78,
            Self::Listen { .. } | Self::Journal(JournalError::InUse { .. }) => 69,
            Self::Journal(
                JournalError::Version { .. }
                | JournalError::NotAJournal { .. }
                | JournalError::Damaged { .. }
                | JournalError::Replay { .. },
            ) => 78,
            Self::Journal(_) | Self::System { .. } | Self::Failed => 1,
        }
    }
}

/// What is read from files beside the configuration.
struct Files {
    secret: NodeSecret,
    tokens: Vec<Token>,
    engine_token: Option<TokenHash>,
    /// What accounting systems present to us, their engine, and we to them.
    accounting_system_token: Option<TokenHash>,
    accounting_token: AccountingToken,
    server_tls: Option<ServerTls>,
    client_tls: ClientTls,
}

/// What of it can be replaced while the node runs. Whoever uses it looks each time anew.
struct Replaceable {
    tokens: watch::Sender<Vec<Token>>,
    engine_token: watch::Sender<Option<TokenHash>>,
    accounting_system_token: watch::Sender<Option<TokenHash>>,
    accounting_token: watch::Sender<AccountingToken>,
    /// None where the listener speaks no TLS.
    server_tls: Option<watch::Sender<ServerTls>>,
    client_tls: watch::Sender<ClientTls>,
}

impl Replaceable {
    fn replace(&self, files: Files) {
        self.tokens.send_replace(files.tokens);
        self.engine_token.send_replace(files.engine_token);
        self.accounting_system_token
            .send_replace(files.accounting_system_token);
        self.accounting_token.send_replace(files.accounting_token);
        if let (Some(present), Some(new)) = (&self.server_tls, files.server_tls) {
            present.send_replace(new);
        }
        self.client_tls.send_replace(files.client_tls);
    }
}

/// Says what is wrong with a configuration and the files it names, without opening the store.
pub fn check(loaded: &Loaded) -> Result<(), RunError> {
    check_files(loaded).map(|_| ())
}

fn check_files(loaded: &Loaded) -> Result<Files, RunError> {
    let files = read_files(&loaded.config)?;
    log::filter(&loaded.config.log.level).map_err(|message| RunError::Value {
        key: "log.level",
        message,
    })?;
    Ok(files)
}

/// Runs a node until it is told to stop. `flags` are those that `loaded` was made with, for reloads.
pub fn run(loaded: Loaded, flags: &[(String, String)]) -> Result<(), RunError> {
    let level = log::start(&loaded.config.log).map_err(|message| RunError::Value {
        key: "log.level",
        message,
    })?;
    let config = loaded.config;
    let files = read_files(&config)?;

    // Ports first: a node that cannot serve must not touch the data folder.
    let node_listener = bind("node.listen", config.node.listen)?;
    let admin_listener = bind("admin.listen", config.admin.listen)?;
    let engine_listener = config.settlement.listen;
    let engine_listener = engine_listener
        .map(|address| bind("settlement.listen", address))
        .transpose()?;
    let accounting_listener = config.engine.listen;
    let accounting_listener = accounting_listener
        .map(|address| bind("engine.listen", address))
        .transpose()?;
    let endpoints = Endpoints {
        node: local_address(&node_listener)?,
        admin: local_address(&admin_listener)?,
        settlement: engine_listener.as_ref().map(local_address).transpose()?,
        engine: accounting_listener
            .as_ref()
            .map(local_address)
            .transpose()?,
        pid: process::id(),
    };

    let engine_terms = config.engine.terms().map_err(engine_value)?;
    let workers = config.node.threads.unwrap_or_else(cores);
    let (engines, engine_asks) = mpsc::unbounded_channel();
    let public_url = public_url(&config, endpoints.node, files.server_tls.is_some());
    let replaceable = Replaceable {
        tokens: watch::Sender::new(files.tokens),
        engine_token: watch::Sender::new(files.engine_token),
        accounting_system_token: watch::Sender::new(files.accounting_system_token),
        accounting_token: watch::Sender::new(files.accounting_token),
        server_tls: files.server_tls.map(watch::Sender::new),
        client_tls: watch::Sender::new(files.client_tls),
    };
    let shell = recover(&config, files.secret, workers, engines, public_url.clone())?;
    let shell = Arc::new(shell);
    let auth = Arc::new(AuthCounters::default());
    shell.read(|core| auth.callers.block(core.ledger().blocked_callers()));
    let handle = Arc::new(Handle {
        shell: Arc::clone(&shell),
        tls: replaceable.client_tls.subscribe(),
        accounting_token: replaceable.accounting_token.subscribe(),
        auth: Arc::clone(&auth),
        newcomers: Arc::default(),
        callbacks: Arc::default(),
        public_url,
        started: Instant::now(),
        rates_changed: Notify::new(),
        config: RwLock::new(config.clone()),
        peering: Peering::default(),
    });

    let connections_max = open_files::connections_max(open_files::raise(), workers);
    let newcomers = newcomer_limits(&config.limits, connections_max, workers);
    let (stop, stopped) = watch::channel(false);
    let mut io_threads = Vec::new();
    for id in 0..workers {
        let listener = node_listener
            .try_clone()
            .map_err(system("listen on several threads"))?;
        let (handle, client_tls) = (Arc::clone(&handle), replaceable.client_tls.subscribe());
        let with_sessions = Arc::clone(&shell);
        let greeting_path = config.auto_peering.path.clone();
        let worker = move || WorkerConfig {
            id,
            clock: handle.shell.clock,
            directory: handle.shell.directory.subscribe(),
            auth_counters: Arc::clone(&handle.auth),
            callbacks: Arc::clone(&handle.callbacks),
            tls: client_tls,
            btp: session::Settings::default(),
            connections_max,
            newcomers,
            newcomer_counters: Arc::clone(&handle.newcomers),
            greeting: greet(Arc::clone(&handle)),
            greeting_path: greeting_path.clone(),
            spsp: answer_spsp(handle),
            has_session: Box::new(move |id| with_sessions.read(|core| core.has_session(id))),
        };
        let tls = replaceable
            .server_tls
            .as_ref()
            .map(watch::Sender::subscribe);
        let shell = Arc::clone(&shell);
        let thread = threads::spawn_worker(shell, id, worker, listener, tls, stopped.clone());
        io_threads.push(thread.map_err(system("start a thread"))?);
    }
    let syncer = threads::spawn_syncer(Arc::clone(&shell)).map_err(system("start a thread"))?;
    let checkpointer =
        threads::spawn_checkpointer(Arc::clone(&shell)).map_err(system("start a thread"))?;

    let endpoints_file = config.node.data_dir.join(ENDPOINTS_FILE);
    write_endpoints(&endpoints_file, &endpoints)?;
    info!(
        name = config.node.name,
        address = config.node.ilp_address.as_ref().map_or("unknown", |address| address.as_str()),
        node = %endpoints.node,
        admin = %endpoints.admin,
        "ready"
    );

    // The admin API and the signals share the main thread: neither is on a packet's path.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(system("start the runtime"))?;
    let served = runtime.block_on(async {
        let mut terminate = on(SignalKind::terminate())?;
        let mut interrupt = on(SignalKind::interrupt())?;
        let mut hang_up = on(SignalKind::hangup())?;
        // Whoever limits the size of files wants the write refused, which is a failure like that of
        // a full disk, and not the node killed.
        let _file_size = on(SignalKind::from_raw(SIGXFSZ))?;
        let admin = tokio::net::TcpListener::from_std(admin_listener);
        let admin = admin.map_err(system("listen for the admin API"))?;
        let until_stopped = || {
            let mut stopped = stopped.clone();
            async move {
                let _ = stopped.changed().await;
            }
        };
        let node: Arc<dyn rialto_admin::Node> = Arc::<Handle>::clone(&handle);
        let renewing = Arc::clone(&shell);
        tokio::spawn(async move { renewing.renew_tokens().await });
        tokio::spawn(rate_feed::run(Arc::clone(&handle)));
        tokio::spawn(engines::run(Arc::clone(&handle), engine_asks));
        if let Some(listener) = engine_listener {
            let listener = tokio::net::TcpListener::from_std(listener);
            let listener = listener.map_err(system("listen for settlement engines"))?;
            let (node, token) = (Arc::clone(&node), replaceable.engine_token.subscribe());
            tokio::spawn(rialto_admin::serve_engines(
                listener,
                node,
                token,
                until_stopped(),
            ));
        }
        if let (Some(listener), Some(terms)) = (accounting_listener, engine_terms) {
            let listener = tokio::net::TcpListener::from_std(listener);
            let listener = listener.map_err(system("listen for accounting systems"))?;
            let token = replaceable.accounting_system_token.subscribe();
            tokio::spawn(rialto_admin::serve_engine(
                listener,
                Arc::clone(&node),
                token,
                terms,
                until_stopped(),
            ));
        }
        let tokens = replaceable.tokens.subscribe();
        let serving = tokio::spawn(rialto_admin::serve(admin, node, tokens, until_stopped()));
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    reload(&loaded.path, flags, &handle, &replaceable, &level);
                }
            }
        }
        info!("draining: new packets are refused, those in flight finish");
        let mut leaving = pin!(async {
            drain(&shell).await;
            stop.send_replace(true);
            let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
            let _ = fs::remove_file(&endpoints_file);
            // What was answered leaves before they end.
            let join = || {
                io_threads
                    .into_iter()
                    .for_each(|thread| drop(thread.join()))
            };
            let _ = tokio::task::spawn_blocking(join).await;
        });
        let is_told_twice = tokio::select! {
            () = &mut leaving => false,
            _ = terminate.recv() => true,
            _ = interrupt.recv() => true,
        };
        if is_told_twice {
            warn!("told twice: stopping at once");
            shell.hurry();
            leaving.await;
        }
        Ok::<(), RunError>(())
    });
    let _ = fs::remove_file(&endpoints_file);
    served?;

    shell.draining.store(true, Ordering::Relaxed);
    checkpointer.thread().unpark();
    let _ = checkpointer.join();
    if !shell.has_failed() {
        threads::checkpoint(&shell);
    }
    let closed = shell.journal.close();
    let _ = syncer.join();
    if shell.has_failed() {
        return Err(RunError::Failed);
    }
    closed?;
    info!(released_before_sync = shell.released_early(), "stopped");
    Ok(())
}

fn read_files(config: &Config) -> Result<Files, RunError> {
    let node = &config.node;
    let value = |key: &'static str| move |message: String| RunError::Value { key, message };
    let secret = NodeSecret::read(&node.secret_file)?;
    let first = read_private(&config.admin.token_file)?;
    if first.len() < 16 {
        let message = format!(
            "{} must hold at least 16 characters",
            config.admin.token_file.display()
        );
        return Err(RunError::Value {
            key: "admin.token_file",
            message,
        });
    }
    let mut tokens = vec![Token {
        name: "admin.token_file".to_owned(),
        hash: hash_token(first.as_bytes()),
        scopes: Scopes::ALL,
        expires_at_ms: None,
    }];
    for token in &config.admin.tokens {
        let hash = serde_json::from_value::<TokenHash>(token.hash.clone().into());
        let hash =
            hash.map_err(|error| value("admin.tokens")(format!("{}: {error}", token.name)))?;
        let scopes = Scopes::parse(&token.scopes)
            .map_err(|message| value("admin.tokens")(format!("{}: {message}", token.name)))?;
        let (name, expires_at_ms) = (token.name.clone(), token.expires_at_ms);
        tokens.push(Token {
            name,
            hash,
            scopes,
            expires_at_ms,
        });
    }
    let payers = tokens.iter().filter(|token| token.scopes.may_pay());
    let payers: BTreeSet<_> = payers.map(|token| &token.name).collect();
    if config.settlement.second_approver && payers.len() < 2 {
        let message =
            "needs a second token in admin.tokens with the scope 'pay', for whoever approves";
        return Err(value("settlement.second_approver")(message.to_owned()));
    }
    let engine_token = config.settlement.token_file.as_deref();
    let read_hash = |path: &Path| Ok::<_, SecretError>(hash_token(read_private(path)?.as_bytes()));
    let engine_token = engine_token.map(read_hash).transpose()?;
    let accounting_system_token = config.engine.token_file.as_deref();
    let accounting_system_token = accounting_system_token.map(read_hash).transpose()?;
    let accounting_token = match &config.engine.accounting_token_file {
        Some(path) => {
            let header = HeaderValue::from_str(&format!("Bearer {}", *read_private(path)?));
            let mut header = header.map_err(|_| {
                let message = "the token in it has characters that no HTTP header may have";
                value("engine.accounting_token_file")(message.to_owned())
            })?;
            header.set_sensitive(true);
            Some(header)
        }
        None => None,
    };
    let tls_value = |key| move |error: TlsError| value(key)(error.to_string());
    let identity = |key, cert: &Option<PathBuf>, private: &Option<PathBuf>| {
        let files = cert.as_ref().zip(private.as_ref());
        let identity = files.map(|(cert, private)| Identity::read(cert, private));
        identity.transpose().map_err(tls_value(key))
    };
    let server = identity(
        "node.tls_cert_file",
        &node.tls_cert_file,
        &node.tls_key_file,
    )?;
    let server_tls = server.as_ref().map(ServerTls::new);
    let client = identity(
        "node.tls_client_cert_file",
        &node.tls_client_cert_file,
        &node.tls_client_key_file,
    )?;
    let client_tls = ClientTls::new(node.tls_roots_file.as_deref(), client.as_ref())
        .map_err(tls_value("node.tls_roots_file"))?;
    Ok(Files {
        secret,
        tokens,
        engine_token,
        accounting_system_token,
        accounting_token,
        server_tls,
        client_tls,
    })
}

fn engine_value((key, message): (&'static str, String)) -> RunError {
    RunError::Value { key, message }
}

fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    let listen = |source| RunError::Listen {
        key,
        address,
        source,
    };
    let listener = TcpListener::bind(address).map_err(listen)?;
    // Once more, because the standard library lets only 128 wait: connections beyond them are
    // dropped, and clients that come in a burst try again for seconds.
    SockRef::from(&listener).listen(BACKLOG).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    Ok(listener)
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, RunError> {
    listener
        .local_addr()
        .map_err(system("read the address of a listener"))
}

fn cores() -> u16 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cores).unwrap_or(u16::MAX)
}

/// Opens the journal and brings the books to where they were.
fn recover(
    config: &Config,
    secret: NodeSecret,
    workers: u16,
    engines: mpsc::UnboundedSender<Action>,
    public_url: String,
) -> Result<Shell, RunError> {
    make_data_folder(&config.node.data_dir).map_err(system("make the data folder"))?;
    let rng = ChaCha20Rng::from_seed(random());
    let mut connector = Connector::new(settings(config), secret.stream(), rng);
    let disk = Arc::new(FileDisk::new(
        config.node.data_dir.join(inspect::JOURNAL_FOLDER),
    ));
    let options = Options {
        id: u64::from_le_bytes(random()),
        ..Options::default()
    };
    let (journal, recovered) = Journal::open(disk, options, |replay| {
        let (lsn, bytes) = match replay {
            Replay::Checkpoint { at, record } => (at, record),
            Replay::Record { lsn, payload } => (lsn, payload),
        };
        let record =
            Record::decode(bytes).map_err(Box::<dyn std::error::Error + Send + Sync>::from)?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(connector.recover(Lsn(lsn.0), record)?)
    })?;
    if let Some(torn) = &recovered.torn {
        let path = torn.path.display().to_string();
        warn!(
            path,
            bytes = torn.bytes,
            reason = torn.reason,
            "an unfinished end of the journal was dropped"
        );
    }
    info!(records = recovered.last.0, "books recovered");

    let shell = Shell::new(connector, journal, secret, workers, engines, public_url);
    let accounts = shell.accounts();
    thread::scope(|scope| {
        // With a million accounts this takes a quarter of a second, and what the core has left to do less.
        let name = "directory".to_owned();
        thread::Builder::new()
            .name(name)
            .spawn_scoped(scope, || shell.publish_all(accounts))
            .map_err(system("start a thread"))?;
        Ok::<_, RunError>(shell.recovered()?)
    })?;
    Ok(shell)
}

/// Who owes whom is for its owner's eyes only. A folder that is there keeps its permissions.
fn make_data_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

fn settings(config: &Config) -> Settings {
    let node = &config.node;
    let own = node.ilp_address.clone();
    Settings {
        min_message_window_ms: node.min_message_window_ms.into(),
        max_hold_ms: node.max_hold_ms.into(),
        spread: node.spread.clone(),
        strict: node.durability == Durability::Strict,
        unsynced_max: config.limits.unsynced.clone(),
        market: config.rates.market(),
        second_approver: config.settlement.second_approver,
        ..own.map_or_else(Settings::of_a_child, Settings::new)
    }
}

/// The share of one of `workers` I/O threads.
fn newcomer_limits(limits: &LimitsConfig, connections_max: usize, workers: u16) -> NewcomerLimits {
    let share = |all: NonZeroUsize| all.get().div_ceil(usize::from(workers.max(1)));
    let half = connections_max.div_ceil(2);
    NewcomerLimits {
        count_max: limits.unauthenticated_connections.map_or(half, share),
        per_address_max: share(limits.unauthenticated_connections_per_address),
    }
}

fn public_url(config: &Config, address: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    let configured = config.node.public_url.clone();
    let url = configured.unwrap_or_else(|| format!("{scheme}://{address}"));
    url.trim_end_matches('/').to_owned()
}

/// Answers payers who ask where to pay.
fn answer_spsp(handle: Arc<Handle>) -> Box<SpspAnswer> {
    Box::new(move |query: SpspQuery| {
        let default = || handle.config.read().node.default_account.clone();
        let name = query
            .account
            .or_else(default)
            .ok_or(SpspRefusal::UnknownReceiver)?;
        let shell = &handle.shell;
        let has_address = shell.read(|core| core.address().is_some());
        if shell.draining.load(Ordering::Relaxed) || shell.has_failed() || !has_address {
            return Err(SpspRefusal::Unavailable);
        }
        let (found, _) = shell.step(&mut Effects::default(), Some, |core, _, _| {
            core.spsp(&name, query.receipt.as_ref())
        });
        let found = found.ok_or(SpspRefusal::UnknownReceiver)?;
        Ok(spsp::Response {
            destination_account: found.credentials.destination_account,
            shared_secret: found.credentials.shared_secret,
            receipts_enabled: query.receipt.is_some(),
            asset: Some(found.asset),
        })
    })
}

/// Answers nodes that are not yet neighbours.
fn greet(handle: Arc<Handle>) -> Box<Greeting> {
    Box::new(move |request| {
        let node = rialto_admin::Handle(Arc::<Handle>::clone(&handle));
        Box::pin(async move { rialto_admin::greet(&node, request).await })
    })
}

/// Written under another name first, so that nobody reads half of it.
fn write_endpoints(path: &Path, endpoints: &Endpoints) -> Result<(), RunError> {
    let write = || {
        let temporary: PathBuf = path.with_extension("json.new");
        fs::write(
            &temporary,
            serde_json::to_vec(endpoints).map_err(io::Error::from)?,
        )?;
        fs::rename(&temporary, path)
    };
    write().map_err(system("write endpoints.json to the data folder"))
}

/// Refuses new packets, and waits until those in flight are answered or their time is over.
async fn drain(shell: &Shell) {
    shell.draining.store(true, Ordering::Relaxed);
    shell.step(&mut Effects::default(), Some, |core, now, out| {
        core.drain(now, out)
    });
    // As it is now: a reload may have changed it.
    let hold_ms = shell.read(|core| core.settings().max_hold_ms);
    let hold = Duration::from_millis(u64::try_from(hold_ms).unwrap_or_default());
    let until = Instant::now() + hold + DRAIN_LOOK;
    while !shell.is_quiet() && !shell.is_hurried() && Instant::now() < until {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

/// Takes what may change while the node runs; keeps the old settings when the new are bad, and what was
/// read from files too: either all of it is new or nothing.
fn reload(
    path: &Path,
    flags: &[(String, String)],
    handle: &Handle,
    replaceable: &Replaceable,
    level: &log::LevelHandle,
) {
    let read = config::load(path, flags).map_err(RunError::from);
    let read = read.and_then(|loaded| Ok((check_files(&loaded)?, loaded)));
    let (files, loaded) = match read {
        Ok(read) => read,
        Err(problem) => {
            error!(%problem, "the new configuration is bad: the old one stays");
            return;
        }
    };
    let (old, new) = (handle.config.read().clone(), loaded.config);
    for (key, changed) in [
        (
            "node.ilp_address",
            old.node.ilp_address != new.node.ilp_address,
        ),
        ("node.listen", old.node.listen != new.node.listen),
        (
            "node.public_url",
            old.node.public_url != new.node.public_url,
        ),
        ("node.data_dir", old.node.data_dir != new.node.data_dir),
        (
            "node.secret_file",
            old.node.secret_file != new.node.secret_file,
        ),
        ("node.threads", old.node.threads != new.node.threads),
        (
            "node.tls_cert_file",
            // Another file is read; whether TLS is spoken at all is what the listener began with.
            old.node.tls_cert_file.is_some() != new.node.tls_cert_file.is_some(),
        ),
        ("admin.listen", old.admin.listen != new.admin.listen),
        (
            "settlement.listen",
            old.settlement.listen != new.settlement.listen,
        ),
        (
            "engine",
            // The files of tokens are read again.
            old.engine.terms().ok() != new.engine.terms().ok()
                || old.engine.listen != new.engine.listen,
        ),
        (
            "auto_peering.path",
            old.auto_peering.path != new.auto_peering.path,
        ),
        ("log.format", old.log.format != new.log.format),
    ] {
        if changed {
            warn!(key, "changes only with a restart");
        }
    }
    if let Ok(filter) = log::filter(&new.log.level) {
        let _ = level.reload(filter);
    }
    replaceable.replace(files);
    let settings = settings(&new);
    handle
        .shell
        .step(&mut Effects::default(), Some, |core, _, _| {
            core.reload(settings)
        });
    let rates_changed = handle.config.read().rates != new.rates;
    *handle.config.write() = new;
    if rates_changed {
        handle.rates_changed.notify_one();
    }
    info!("configuration reloaded");
}

fn on(kind: SignalKind) -> Result<Signal, RunError> {
    signal(kind).map_err(system("listen for signals"))
}

fn system(what: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::System { what, source }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, net::TcpListener, os::unix::fs::PermissionsExt, process};

    use super::{RunError, bind, make_data_folder};

    #[test]
    fn nobody_else_reads_the_data_folder() {
        let folder = env::temp_dir().join(format!("rialto-data-{}", process::id()));
        make_data_folder(&folder).unwrap();
        make_data_folder(&folder).unwrap();
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        fs::remove_dir(&folder).unwrap();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_taken_port_names_its_key() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind("node.listen", address).unwrap_err();
        assert_eq!(error.exit_code(), 69);
        assert!(matches!(
            &error,
            RunError::Listen {
                key: "node.listen",
                ..
            }
        ));
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
