//! One `rialto run` in a process of its own.

use std::{
    env,
    fs::{self, File},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{
    client::Client,
    connect::endpoints,
    failure::{Exit, Failure},
    init::{self, NewNode},
    secret::Token,
};

/// Longest wait for a node to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is asked.
const READY_INTERVAL: Duration = Duration::from_millis(10);
/// Lines of a node's log that are shown when it fails.
const LOG_LINES: usize = 12;

/// A node that lives as long as this value.
#[derive(Debug)]
pub(super) struct NodeProcess {
    pub(super) name: &'static str,
    /// The node listener, once ready.
    pub(super) node: SocketAddr,
    /// The admin API, once ready.
    pub(super) client: Client,
    pub(super) token: Token,
    pub(super) token_file: PathBuf,
    child: Child,
    data_dir: PathBuf,
    log: PathBuf,
}

impl NodeProcess {
    /// Makes a node in an empty folder and starts it.
    pub(super) fn start(folder: &Path, new: &NewNode<'static>) -> Result<Self, Failure> {
        let config = init::write(folder, new)?;
        let loaded = rialto_node::config::load(&config, &[])
            .map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
        let token_file = loaded.config.admin.token_file;
        let token = Token::read(&token_file)?;
        let log = folder.join("log");

        let cannot =
            |error| Failure::failed(format!("cannot start the node {}: {error}", new.name));
        let log_file = File::create(&log).map_err(cannot)?;
        let mut command = Command::new(env::current_exe().map_err(cannot)?);
        command
            .args(["run", "--until-stdin-closes", "--config"])
            .arg(&config)
            // The node sees the other end close even when this process is killed.
            .stdin(Stdio::piped())
            .stdout(log_file.try_clone().map_err(cannot)?)
            .stderr(log_file)
            // Ctrl-C is for the demo, which then ends its nodes.
            .process_group(0);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("RIALTO_") {
                command.env_remove(name);
            }
        }
        Ok(Self {
            name: new.name,
            node: loaded.config.node.listen,
            client: Client::new("http://127.0.0.1:0", Some(token.clone()))?,
            token,
            token_file,
            child: command.spawn().map_err(cannot)?,
            data_dir: loaded.config.node.data_dir,
            log,
        })
    }

    /// Waits until the node has written down its ports and says that it is ready.
    pub(super) async fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        loop {
            if let Some(endpoints) = endpoints(&self.data_dir) {
                self.node = endpoints.node;
                let url = format!("http://{}", endpoints.admin);
                self.client = Client::new(&url, Some(self.token.clone()))?;
                if self.client.is_ready().await {
                    return Ok(());
                }
            }
            let exited = self.child.try_wait().ok().flatten();
            let why = match exited {
                Some(status) => format!("stopped ({status})"),
                None if started.elapsed() > READY_TIMEOUT => {
                    "was not ready within 30 seconds".to_owned()
                }
                None => {
                    sleep(READY_INTERVAL).await;
                    continue;
                }
            };
            let message = format!("the node {} {why}", self.name);
            return Err(self.blame(Failure::new(Exit::Unavailable, message)));
        }
    }

    /// A failure of this node, with the end of its log.
    pub(super) fn blame(&self, failure: Failure) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        let message = format!("{}: {}\n{}", self.name, failure.message, last.join("\n"));
        Failure::new(failure.exit, message.trim_end())
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // Its folder goes away in a moment: there is nothing to drain or to write down.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
