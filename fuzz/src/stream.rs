//! Targets over `rialto-stream`: none of them may panic on any bytes, and what a decoder accepts has
//! to survive its own encoder.

use rialto_stream::{
    Receipt, ReceiptSecret,
    packet::{Packet, PacketBuilder},
};

/// The body of a target.
pub type Target = fn(&[u8]);

/// Each target by the name of its binary and of its corpus folder.
pub const TARGETS: &[(&str, Target)] = &[
    ("stream_packet", stream_packet),
    ("stream_receipt", stream_receipt),
];

/// A decrypted packet and its frames.
pub fn stream_packet(bytes: &[u8]) {
    let Ok(packet) = Packet::parse(bytes) else {
        return;
    };
    // Unreadable and unknown frames are left out; what remains reads as before.
    let frames: Vec<_> = packet.frames().flatten().collect();
    let canonical = PacketBuilder {
        packet_type: packet.packet_type,
        sequence: packet.sequence,
        prepare_amount: packet.prepare_amount,
        frames: &frames,
    }
    .encode();
    assert!(canonical.len() <= bytes.len(), "canonical is shortest");
    let again = Packet::parse(&canonical).expect("the canonical form is valid");
    assert_eq!(again.packet_type, packet.packet_type);
    assert_eq!(again.sequence, packet.sequence);
    assert_eq!(again.prepare_amount, packet.prepare_amount);
    assert_eq!(again.frames().collect::<Result<Vec<_>, _>>(), Ok(frames));
}

/// A receipt; noise never carries a valid signature, ours always does.
pub fn stream_receipt(bytes: &[u8]) {
    let Ok(receipt) = Receipt::parse(bytes) else {
        return;
    };
    let secret = ReceiptSecret::from_bytes([7; 32]);
    let signed = receipt.encode(&secret);
    assert_eq!(Receipt::verify(&signed, &secret), Ok(receipt));
    assert_eq!(Receipt::verify(bytes, &secret).is_ok(), bytes == signed);
}
