//! The node as its admin API sees it.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use parking_lot::RwLock;
use rialto_admin::{
    AutoPeering, BoxFuture, Caller, Check, CheckVerdict, Command, Node, NodeStatus, Peering,
    Probed, ResolveError, ResolvedReceiver, Unavailable,
};
use rialto_connector::{Connector, Effects, Event, PeeringBounds};
use rialto_ledger::{AccountId, SealedSecret, TokenHash};
use rialto_links::{
    AuthCounters, CallbackRefusal, Callbacks, ClientTls, NewcomerCounters, Verdict,
    engine_client::AccountingToken,
    spsp_client::{self, Permissions, QueryError},
};
use rialto_stream::pointer;
use tokio::sync::{Notify, broadcast, watch};

use crate::{config::Config, secrets, shell::Shell};

/// Shared by all requests to the API.
pub(crate) struct Handle {
    pub(crate) shell: Arc<Shell>,
    /// Replaced by a reload.
    pub(crate) config: RwLock<Config>,
    pub(crate) tls: watch::Receiver<ClientTls>,
    /// What the accounting system wants of us, its engine.
    pub(crate) accounting_token: watch::Receiver<AccountingToken>,
    pub(crate) auth: Arc<AuthCounters>,
    pub(crate) newcomers: Arc<NewcomerCounters>,
    pub(crate) callbacks: Arc<Callbacks>,
    /// Where the node listener is reached, without a slash at the end.
    pub(crate) public_url: String,
    pub(crate) started: Instant,
    /// Where rates come from may have changed.
    pub(crate) rates_changed: Notify,
    pub(crate) peering: Peering,
}

impl Handle {
    /// How servers are verified at present.
    pub(crate) fn tls(&self) -> ClientTls {
        self.tls.borrow().clone()
    }

    /// What accounting systems are shown at present.
    pub(crate) fn accounting_token(&self) -> AccountingToken {
        self.accounting_token.borrow().clone()
    }
}

impl Node for Handle {
    fn read(&self, look: &mut dyn FnMut(&Connector)) {
        self.shell.read(|connector| look(connector));
    }

    fn execute(&self, command: Command) -> BoxFuture<'_, Result<(), Unavailable>> {
        // At once, not when the future is first polled: what was asked for happens.
        let ((), lsn) = self.shell.step(&mut Effects::default(), Some, command);
        Box::pin(async move {
            self.shell.journal.hurry();
            let mut synced = self.shell.synced.subscribe();
            let safe = synced
                .wait_for(|synced| *synced >= lsn || self.shell.has_failed())
                .await;
            match safe {
                Ok(synced) if *synced >= lsn => Ok(()),
                Ok(_) | Err(_) => Err(Unavailable("the journal failed: see the log".to_owned())),
            }
        })
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.shell.events.subscribe()
    }

    fn seal(&self, secret: &str) -> SealedSecret {
        self.shell.secret.seal(secret)
    }

    fn resolve<'a>(
        &'a self,
        receiver: &'a str,
    ) -> BoxFuture<'a, Result<ResolvedReceiver, ResolveError>> {
        Box::pin(async move {
            let insecure = self.config.read().node.allow_insecure_receivers;
            let permissions = Permissions {
                insecure,
                other_hosts: false,
            };
            let answer = spsp_client::query(receiver, permissions, &self.tls()).await;
            let answer = answer.map_err(|error| ResolveError {
                code: resolve_code(&error),
                message: match &error {
                    QueryError::Pointer { .. } if !insecure => format!(
                        "{error}; for development, `node.allow_insecure_receivers` permits it"
                    ),
                    QueryError::Pointer { .. }
                    | QueryError::Unreachable { .. }
                    | QueryError::Timeout(_)
                    | QueryError::Status { .. }
                    | QueryError::Redirect { .. }
                    | QueryError::NotSpsp { .. } => error.to_string(),
                },
            })?;
            Ok(ResolvedReceiver {
                url: answer.final_url,
                destination: answer.response.destination_account,
                shared_secret: answer.response.shared_secret,
                asset: answer.response.asset,
            })
        })
    }

    fn callers(&self) -> Vec<Caller> {
        let callers = self.auth.callers.all().into_iter();
        let caller = |caller: rialto_links::Caller| Caller {
            hash: caller.hash,
            token_len: caller.token_len,
            address: caller.address,
            path: caller.path,
            count: caller.count,
            first_ms: caller.first_ms,
            last_ms: caller.last_ms,
        };
        callers.map(caller).collect()
    }

    fn forget_caller(&self, hash: TokenHash) {
        self.auth.callers.forget(hash);
    }

    fn block_callers(&self, blocked: &mut dyn Iterator<Item = TokenHash>) {
        self.auth.callers.block(blocked);
    }

    fn auto_peering(&self) -> Option<AutoPeering> {
        let config = self.config.read();
        let config = &config.auto_peering;
        Some(AutoPeering {
            path: config.path.clone()?,
            bounds: PeeringBounds {
                count_max: config.requests_max.get(),
                per_source_max: config.requests_per_address_max.get(),
            },
            request_hours: config.request_hours.get(),
            approval_hours: config.approval_hours.get(),
        })
    }

    fn payment_pointer(&self, account: &str) -> Option<String> {
        let url = format!("{}/{account}", self.public_url);
        Some(pointer::pointer_for(&url).unwrap_or(url))
    }

    fn status(&self) -> NodeStatus {
        let (shell, journal) = (&self.shell, &self.shell.journal);
        let unauthenticated = AuthCounters::REASONS.map(|reason| (reason, self.auth.get(reason)));
        NodeStatus {
            name: self.config.read().node.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            draining: shell.draining.load(Ordering::Relaxed),
            written_lsn: journal.written().0,
            synced_lsn: journal.synced().0,
            journal_failure: shell.has_failed().then(|| "see the log".to_owned()),
            worker_count: shell.mailboxes.len(),
            unauthenticated: unauthenticated.to_vec(),
            refused_callbacks: CallbackRefusal::ALL
                .map(|why| (why.word(), self.callbacks.refused(why)))
                .to_vec(),
            unauthenticated_connections: self.newcomers.open(),
            displaced_connections: self.newcomers.displaced(),
        }
    }

    fn random(&self) -> [u8; 32] {
        secrets::random()
    }

    fn derive(&self, purpose: &str, context: &[u8]) -> [u8; 32] {
        self.shell.secret.derive(purpose, context)
    }

    fn endpoint(&self) -> String {
        self.public_url.clone()
    }

    fn shows_certificate(&self) -> bool {
        self.tls.borrow().shows_certificate()
    }

    fn may_connect(&self, url: &str) -> Result<(), String> {
        let uri: Uri = url.parse().map_err(|_| "is not a URL")?;
        let host = uri.host().ok_or("names no host")?;
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        if address.is_some_and(|address| address.is_unspecified()) {
            return Err("is an address that nobody can connect to".to_owned());
        }
        let is_here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let insecure = self.config.read().node.allow_insecure_receivers;
        match uri.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if is_here || insecure => Ok(()),
            Some("http") => Err(
                "is plain http, so that secrets could be read on the way: it must be https \
                 (for development, `node.allow_insecure_receivers` permits it)"
                    .to_owned(),
            ),
            Some(_) | None => Err("does not begin with https://".to_owned()),
        }
    }

    fn exchange(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, String>> {
        Box::pin(async move { rialto_links::exchange(request, &self.tls()).await })
    }

    fn probe(&self, account: AccountId, asks_link: bool) -> BoxFuture<'_, Probed> {
        let directory = Arc::clone(&self.shell.directory.borrow());
        Box::pin(async move {
            let Some(account) = directory.account(account) else {
                return Probed::default(); // deleted meanwhile
            };
            let has_session = self.shell.read(|core| core.has_session(account.id));
            let asks_link = asks_link.then_some(rialto_admin::LINK_PATH);
            let found = rialto_links::probe(&account, has_session, asks_link, &self.tls()).await;
            let checks = found.findings.into_iter().map(|finding| {
                let (verdict, mistake) = match finding.verdict {
                    Verdict::Pass => (CheckVerdict::Pass, None),
                    Verdict::Skip => (CheckVerdict::Skip, None),
                    Verdict::Fail(word) => (CheckVerdict::Fail, Some(word.to_owned())),
                };
                Check {
                    check: finding.check.to_owned(),
                    verdict,
                    mistake,
                    detail: finding.detail,
                }
            });
            Probed {
                checks: checks.collect(),
                link: found.link,
                date_ms: found.date_ms,
                config: found.config,
            }
        })
    }

    fn peering(&self) -> &Peering {
        &self.peering
    }
}

/// A word for programs.
fn resolve_code(error: &QueryError) -> &'static str {
    match error {
        QueryError::Pointer { .. } => "receiver_invalid",
        QueryError::Unreachable { .. } => "receiver_unreachable",
        QueryError::Timeout(_) => "receiver_timeout",
        QueryError::Status { .. } => "receiver_status",
        QueryError::Redirect { .. } => "receiver_redirect",
        QueryError::NotSpsp { .. } => "receiver_not_spsp",
    }
}
