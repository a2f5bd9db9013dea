//! Child processes: pinned to a core, timed through `/proc`, ended with us.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Listening, Result};

/// How long a child may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A child that is stopped when this is dropped.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM and not SIGKILL: a master of workers has to take them along.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(POLL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program on one core.
pub(crate) fn pinned(core: usize, program: &Path) -> Command {
    on(Some(core), program)
}

/// Starts a program on one core, or on all of them.
pub(crate) fn on(core: Option<usize>, program: &Path) -> Command {
    let mut command = match core {
        None => Command::new(program),
        Some(core) => {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(core.to_string()).arg(program);
            command
        }
    };
    command.stdin(Stdio::piped());
    command
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let child = command
            .spawn()
            .map_err(|error| format!("cannot start {command:?}: {error}"))?;
        Ok(Self(child))
    }

    /// Starts one of our own servers and reads where it listens.
    pub(crate) fn listening(command: &mut Command) -> Result<(Self, Listening)> {
        command.arg("--until-stdin-closes").stdout(Stdio::piped());
        let mut process = Self::spawn(command)?;
        let stdout = process.0.stdout.take().ok_or("no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let listening =
            serde_json::from_str(&line).map_err(|_| format!("{command:?} did not start"))?;
        Ok((process, listening))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    pub(crate) fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.0.stdout.take()
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> Result<()> {
        self.0.wait()?;
        Ok(())
    }
}

/// Resident memory of a process and its children.
pub(crate) fn memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let own = line
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0);
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|child| child.parse().ok());
    own + children.map(memory_kib).sum::<u64>()
}

/// Time on a processor that a process and its children (nginx keeps its workers so) have used, user and
/// system, in nanoseconds. Of threads that run: one that ended takes its own along.
pub(crate) fn cpu_ns(pid: u32) -> Result<u64> {
    let mut ns = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // Time on a processor, time spent waiting for one, and how often it had one.
        let Ok(used) = std::fs::read_to_string(task?.path().join("schedstat")) else {
            continue; // it has just ended
        };
        let used = used.split(' ').next().ok_or("an empty schedstat")?;
        ns += used.parse::<u64>()?;
    }
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    for child in children.split_whitespace() {
        ns += cpu_ns(child.parse()?)?;
    }
    match ns {
        0 => Err("no times in /proc/PID/task/TID/schedstat".into()),
        _ => Ok(ns),
    }
}

/// Waits until something listens.
pub(crate) fn wait_for_listener(address: std::net::SocketAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match std::net::TcpStream::connect(address) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(format!("nothing listens on {address}: {error}").into());
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// Whether a program is on the `PATH`.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
