//! The packets of a benchmark: each has a condition of its own, and carries what fulfills it in the
//! first bytes of its data.

use aws_lc_rs::digest::{SHA256, digest};
use rialto_node::secrets::random;
use rialto_packet::{
    Address, ErrorCode, FulfillBuilder, Prepare, PrepareBuilder, RejectBuilder, Reply, Timestamp,
};

/// How much of a packet's data is the preimage of its condition.
pub(crate) const PREIMAGE_BYTES: usize = 32;

/// A 32-byte preimage.
pub(crate) type Preimage = [u8; PREIMAGE_BYTES];

/// Makes Prepares.
pub(crate) struct Packets {
    destination: Address,
    amount: u64,
    expiry_ms: i64,
    data: Vec<u8>,
    /// Half random, so that two runs never send the same packet; half a count.
    preimage: Preimage,
    count: u64,
}

impl Packets {
    pub(crate) fn new(destination: Address, amount: u64, data_bytes: u16, expiry_ms: i32) -> Self {
        Self {
            destination,
            amount,
            expiry_ms: expiry_ms.into(),
            data: vec![0; usize::from(data_bytes).max(PREIMAGE_BYTES)],
            preimage: random::<PREIMAGE_BYTES>(),
            count: 0,
        }
    }

    /// The next packet and what fulfills it.
    pub(crate) fn next(&mut self, now: Timestamp) -> (Vec<u8>, Preimage) {
        self.count += 1;
        self.preimage[24..].copy_from_slice(&self.count.to_be_bytes());
        self.data[..PREIMAGE_BYTES].copy_from_slice(&self.preimage);
        let condition = digest(&SHA256, &self.preimage);
        let packet = PrepareBuilder {
            amount: self.amount,
            expires_at: now.plus_ms(self.expiry_ms),
            condition: condition.as_ref().try_into().expect("SHA-256 has 32 bytes"),
            destination: self.destination.as_ref(),
            data: &self.data,
        };
        let packet = packet.encode().expect("the length of data was checked");
        (packet, self.preimage)
    }
}

/// What came back for a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A Fulfill with the right preimage.
    Fulfilled,
    /// A Reject: code and message.
    Rejected(String),
    /// No ILP packet that answers it; why.
    Failed(String),
}

/// Reads an answer to the packet with this preimage.
pub(crate) fn read(reply: &[u8], preimage: &Preimage) -> Answer {
    match Reply::parse(reply) {
        Ok(Reply::Fulfill(fulfill)) if fulfill.fulfillment() == *preimage => Answer::Fulfilled,
        Ok(Reply::Fulfill(_)) => Answer::Failed("a Fulfill with a wrong preimage".to_owned()),
        Ok(Reply::Reject(reject)) => {
            let code = reject.code().to_bytes();
            let code = String::from_utf8_lossy(&code).into_owned();
            Answer::Rejected(format!("{code} {}", reject.message()).trim_end().to_owned())
        }
        Err(error) => Answer::Failed(format!("an unreadable answer: {error}")),
    }
}

/// What a fulfilling peer answers to `prepare`, or why it cannot.
pub(crate) fn fulfill(prepare: &[u8]) -> Result<Vec<u8>, String> {
    let prepare = Prepare::parse(prepare).map_err(|error| error.to_string())?;
    let fulfillment = *prepare
        .data()
        .first_chunk::<PREIMAGE_BYTES>()
        .ok_or("the data is too short for a preimage")?;
    if digest(&SHA256, &fulfillment).as_ref() != prepare.condition() {
        return Err("the data does not begin with the preimage of the condition".to_owned());
    }
    let fulfill = FulfillBuilder {
        fulfillment,
        data: &[],
    };
    Ok(fulfill.encode().expect("it has no data"))
}

/// A refusal of our own.
pub(crate) fn reject(message: &str) -> Vec<u8> {
    let reject = RejectBuilder {
        code: ErrorCode::F99_APPLICATION_ERROR,
        triggered_by: None,
        message,
        data: &[],
    };
    reject.encode().expect("it has no data")
}
#[cfg(test)]
mod tests {
    use super::*;

    fn packets() -> Packets {
        Packets::new("test.bench.sink".parse().unwrap(), 7, 300, 30_000)
    }

    #[test]
    fn every_packet_is_fulfilled_by_its_own_answer_only() {
        let mut packets = packets();
        let now = Timestamp::from_unix_ms(1_900_000_000_000);
        let (first, first_preimage) = packets.next(now);
        let (second, second_preimage) = packets.next(now);
        let answer = fulfill(&first).unwrap();
        assert_eq!(read(&answer, &first_preimage), Answer::Fulfilled);
        assert!(matches!(read(&answer, &second_preimage), Answer::Failed(_)));

        let parsed = Prepare::parse(second.as_slice()).unwrap();
        assert_eq!(parsed.data().len(), 300);
        assert_eq!(parsed.amount(), 7);
        assert_eq!(parsed.expires_at(), now.plus_ms(30_000));
        assert_ne!(
            parsed.condition(),
            Prepare::parse(first.as_slice()).unwrap().condition()
        );
    }

    #[test]
    fn a_packet_without_its_preimage_cannot_be_fulfilled() {
        let (mut packet, _) = packets().next(Timestamp::from_unix_ms(1_900_000_000_000));
        let last = packet.len() - 300;
        packet[last] ^= 1;
        assert!(fulfill(&packet).unwrap_err().contains("preimage"));
    }

    #[test]
    fn rejects_and_nonsense_are_told_apart() {
        let answer = read(&reject("no route"), &[0; 32]);
        assert_eq!(answer, Answer::Rejected("F99 no route".to_owned()));
        assert!(matches!(read(b"<html>", &[0; 32]), Answer::Failed(_)));
    }
}
