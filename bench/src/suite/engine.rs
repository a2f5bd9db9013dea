//! Settlement engines of the suite: one that takes every settlement at once, and one that hangs.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use crate::Result;

/// What an engine does once it is asked to settle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Answers,
    /// It keeps the connection, and never answers.
    Hangs,
}

/// Serves as long as the program runs.
pub(super) struct Engine {
    address: SocketAddr,
    asked: Arc<AtomicU64>,
}

impl Engine {
    pub(super) fn start(mood: Mood) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let asked = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(std::io::Result::ok) {
                let counter = Arc::clone(&counter);
                thread::spawn(move || serve(&stream, mood, &counter));
            }
        });
        Ok(Self { address, asked })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How often it was asked to settle.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// One request. A node that is gone is no mistake.
fn serve(mut stream: &TcpStream, mood: Mood, asked: &AtomicU64) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
    if first.contains("/settlements ") {
        asked.fetch_add(1, Ordering::Relaxed);
        if mood == Mood::Hangs {
            let _ = reader.read(&mut [0]); // until the node gives up
            return None;
        }
    }
    let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(answer).ok()
}
