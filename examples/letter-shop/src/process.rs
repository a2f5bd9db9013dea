//! The programs of the example as processes.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{self, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rialto_node::{ENDPOINTS_FILE, Endpoints, secrets::random};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{sleep, timeout},
};

use crate::{Result, http::Json};

/// Longest wait for a program to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a node is asked.
const READY_INTERVAL: Duration = Duration::from_millis(10);

/// Ends a program with the example that started it, however that ends.
pub(crate) fn exit_when_stdin_closes() {
    thread::spawn(|| {
        let mut byte = [0];
        while !matches!(io::stdin().read(&mut byte), Ok(0) | Err(_)) {}
        process::exit(0);
    });
}

/// One of the programs. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts `letter-shop NAME ARGUMENTS...`. What it has to say goes to our standard error.
    pub(crate) fn start<S: AsRef<OsStr>>(name: &str, arguments: &[S]) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command
            .arg(name)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        for (variable, _) in env::vars_os() {
            if variable.to_string_lossy().starts_with("RIALTO_") {
                command.env_remove(variable);
            }
        }
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let stdout = child.stdout.take().ok_or("a program without output")?;
        Ok(Self {
            name: name.to_owned(),
            child,
            lines: BufReader::new(stdout).lines(),
        })
    }

    /// The next line that it prints; `None` when it has ended well.
    pub(crate) async fn line(&mut self) -> Result<Option<String>> {
        if let Some(line) = self.lines.next_line().await? {
            return Ok(Some(line));
        }
        let status = self.child.wait().await?;
        if status.success() {
            Ok(None)
        } else {
            Err(format!("{} ended: {status}", self.name).into())
        }
    }

    /// The first line, which says where it listens.
    pub(crate) async fn address(&mut self) -> Result<String> {
        let line = timeout(READY_TIMEOUT, self.line())
            .await
            .map_err(|_| format!("{} was not ready in time", self.name))??;
        Ok(line.ok_or_else(|| format!("{} ended at once", self.name))?)
    }
}

/// A node in a folder of its own.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) admin: Json,
    pub(crate) endpoints: Endpoints,
    token_file: PathBuf,
    _process: Running,
}

impl Node {
    /// Makes a node named `name`, at `test.NAME`, and waits until it is ready.
    pub(crate) async fn start(folder: &Path, name: &str) -> Result<Self> {
        let folder = folder.join(name);
        fs::create_dir(&folder)?;
        let token = BASE64_STANDARD.encode(random::<24>());
        let config = folder.join("rialto.toml");
        let token_file = folder.join("admin.token");
        write_private(
            &folder.join("secret.key"),
            &BASE64_STANDARD.encode(random::<32>()),
        )?;
        write_private(&token_file, &token)?;
        write_private(
            &config,
            &format!(
                "[node]\nname = \"{name}\"\nilp_address = \"test.{name}\"\nlisten = \"127.0.0.1:0\"\n\
                 data_dir = \"data\"\nsecret_file = \"secret.key\"\nallow_insecure_receivers = true\n\
                 [admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"admin.token\"\n\
                 [settlement]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"warn\"\n"
            ),
        )?;
        let process = Running::start("node", &[OsStr::new(&config)])?;
        let started = Instant::now();
        loop {
            let written = fs::read(folder.join("data").join(ENDPOINTS_FILE)).ok();
            let endpoints = written.and_then(|text| serde_json::from_slice(&text).ok());
            if let Some(endpoints) = endpoints {
                let endpoints: Endpoints = endpoints;
                let admin = Json::new(&format!("http://{}", endpoints.admin), Some(&token));
                if admin.get("/readyz").await.is_ok() {
                    return Ok(Self {
                        admin,
                        endpoints,
                        token_file,
                        _process: process,
                    });
                }
            }
            if started.elapsed() > READY_TIMEOUT {
                return Err(format!("the node {name} was not ready in time").into());
            }
            sleep(READY_INTERVAL).await;
        }
    }

    /// What a program needs to use this node.
    pub(crate) fn arguments(&self) -> Vec<String> {
        vec![
            "--node".to_owned(),
            format!("http://{}", self.endpoints.admin),
            "--token-file".to_owned(),
            self.token_file.display().to_string(),
        ]
    }
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
