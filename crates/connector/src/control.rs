//! Packets to the node itself: `peer.*` from a direct neighbour, echo and ping from anywhere.

use bytes::{Bytes, BytesMut};
use rialto_ccp::{CONTROL_DESTINATION, UPDATE_DESTINATION};
use rialto_ledger::{AccountId, Relation};
use rialto_packet::{
    Addr, ErrorCode, FulfillBuilder, PEER_CONDITION, PEER_FULFILLMENT, Prepare, PrepareBuilder,
    ildcp, oer::Reader,
};

use crate::{
    Connector,
    forward::{Back, Source, deadline, limit_refusal},
    io::{Durable, Effects, LinkId, Now, Paid, RequestId},
    messages::SETTLE_DESTINATION,
    pending::OwnRequest,
    refusal::{LinkFailure, Reason, Refusal},
};

/// First bytes of the data of an echo (ilpv4.md, section 7).
const ECHO_PREFIX: &[u8; 16] = b"ECHOECHOECHOECHO";
const ECHO_REQUEST: u8 = 0;
const ECHO_RESPONSE: u8 = 1;

/// The fulfillment of a ping, known to everybody.
const PING_FULFILLMENT: [u8; 32] = *b"pingpingpingpingpingpingpingping";
/// SHA-256 of [`PING_FULFILLMENT`].
pub(crate) const PING_CONDITION: [u8; 32] = [
    0x8c, 0x00, 0xbc, 0x0c, 0x61, 0x4f, 0x64, 0xf7, 0xe1, 0xe0, 0x0b, 0x59, 0xa5, 0x7b, 0xaf, 0x5c,
    0x57, 0xb6, 0xa1, 0x19, 0xa9, 0x0d, 0x54, 0xaf, 0x48, 0x98, 0x36, 0xa1, 0x3f, 0x9b, 0xc7, 0x7e,
];

impl Connector {
    /// From neighbour to neighbour: never forwarded, never converted, without money.
    pub(crate) fn handle_peer(
        &mut self,
        now: Now,
        from: Source,
        packet: &Prepare<BytesMut>,
        out: &mut Effects,
    ) -> Result<(), Refusal> {
        let not_for_you =
            Refusal::from(Reason::AddressInvalid).with_code(ErrorCode::F00_BAD_REQUEST);
        match packet.destination().as_str() {
            ildcp::DESTINATION | CONTROL_DESTINATION | UPDATE_DESTINATION
                if packet.condition() != PEER_CONDITION =>
            {
                Err(Reason::PacketMalformed.into())
            }
            ildcp::DESTINATION => {
                if packet.amount() > 0 {
                    return Err(not_for_you);
                }
                let data = self.child_config(from.account).ok_or(not_for_you)?.encode();
                let fulfill = FulfillBuilder {
                    fulfillment: PEER_FULFILLMENT,
                    data: &data,
                };
                let packet = fulfill
                    .encode()
                    .expect("an address and an asset are not too much data");
                self.stats.of(from.account).fulfills_out += 1;
                self.answer(
                    Durable::Nothing,
                    from.link,
                    from.request,
                    packet.into(),
                    None, // without money
                    out,
                );
                Ok(())
            }
            CONTROL_DESTINATION => self.handle_route_control(from, packet, out),
            UPDATE_DESTINATION => self.handle_route_update(from, packet, out),
            SETTLE_DESTINATION => self.handle_message(now, from, packet, out),
            _ => Err(Reason::AddressInvalid.into()),
        }
    }

    /// A request of our own to a neighbour was answered, or could not be delivered.
    pub(crate) fn own_answered(
        &mut self,
        own: OwnRequest,
        answer: Result<Bytes, LinkFailure>,
        out: &mut Effects,
    ) {
        match own {
            OwnRequest::Route(own) => self.route_answered(own, answer.ok()),
            OwnRequest::Message(id) => self.message_answered(id, answer, out),
        }
    }

    /// The same for one that has no answer. Says whether it was a request of our own.
    pub(crate) fn handle_own_failed(
        &mut self,
        now: Now,
        link: LinkId,
        request: RequestId,
        failure: LinkFailure,
        out: &mut Effects,
    ) -> bool {
        if self.handle_parent_failed(now, link, request, failure, out) {
            return true;
        }
        let own = self.pending.close_own(link, request);
        if let Some(own) = own {
            self.own_answered(own, Err(failure), out);
        }
        own.is_some()
    }

    /// What an account is told by ILDCP: children, and whoever was given an address by hand.
    fn child_config(&self, id: AccountId) -> Option<ildcp::Response> {
        let settings = &self.ledger.account(id)?.settings;
        let entitled = settings.relation == Relation::Child || settings.ilp_address.is_some();
        let client_address = entitled.then(|| self.address_of(id))??;
        Some(ildcp::Response {
            client_address,
            asset: settings.asset.clone(),
        })
    }

    /// Under our own address, and no account's: an echo, a ping, or nothing we know.
    pub(crate) fn handle_own(
        &mut self,
        now: Now,
        from: Source,
        packet: Prepare<BytesMut>,
        out: &mut Effects,
    ) -> Result<(), Refusal> {
        if packet.destination() != self.own_address().as_ref() {
            return Err(Reason::RouteNone.into());
        }
        if packet.condition() == PING_CONDITION {
            return self.answer_ping(now, from, &packet, out);
        }
        if packet.data().starts_with(ECHO_PREFIX) {
            return self.echo(now, from, &packet, out);
        }
        Err(Reason::RouteNone.into())
    }

    /// Takes the amount and proves that we were reached.
    fn answer_ping(
        &mut self,
        now: Now,
        from: Source,
        packet: &Prepare<BytesMut>,
        out: &mut Effects,
    ) -> Result<(), Refusal> {
        let amount = packet.amount();
        let hold = self
            .ledger
            .hold(from.account, amount, AccountId::NODE, 0)
            .map_err(|limit| limit_refusal(limit, amount))?;
        let lsn = self.commit(hold, out);
        let answer_by_ns = deadline(now, packet.expires_at());
        let fulfill = FulfillBuilder {
            fulfillment: PING_FULFILLMENT,
            data: packet.data(),
        };
        let packet = fulfill
            .encode()
            .expect("data that came in a packet fits one");
        let stats = self.stats.of(from.account);
        stats.fulfills_out += 1;
        stats.amount_in += u128::from(amount);
        let after = self.safe(lsn, answer_by_ns);
        let paid = Some(Paid {
            account: from.account,
            amount,
        });
        self.answer(after, from.link, from.request, packet.into(), paid, out);
        Ok(())
    }

    /// Sends a packet back to the address in the request; its outcome is the request's outcome.
    fn echo(
        &mut self,
        now: Now,
        from: Source,
        packet: &Prepare<BytesMut>,
        out: &mut Effects,
    ) -> Result<(), Refusal> {
        let malformed = || Refusal::from(Reason::PacketMalformed);
        let mut reader = Reader::new(&packet.data()[ECHO_PREFIX.len()..]);
        if reader.u8().map_err(|_| malformed())? != ECHO_REQUEST {
            return Err(malformed());
        }
        let source = reader.var_octets().map_err(|_| malformed())?;
        let source = Addr::from_bytes(source).map_err(|_| malformed())?;
        // To ourselves it would echo for ever; services of neighbours are for neighbours.
        if source == self.own_address().as_ref() || source.starts_with("peer") {
            return Err(malformed());
        }
        let mut data = [0; ECHO_PREFIX.len() + 1];
        data[..ECHO_PREFIX.len()].copy_from_slice(ECHO_PREFIX);
        data[ECHO_PREFIX.len()] = ECHO_RESPONSE;
        let response = PrepareBuilder {
            amount: packet.amount(),
            expires_at: packet.expires_at(),
            condition: packet.condition(),
            destination: source,
            data: &data,
        };
        let response = response
            .encode()
            .expect("17 bytes of data are not too much");
        let response = Prepare::parse(BytesMut::from(&response[..]))?;
        self.prepare_route(now, from, Back::IsEcho, response, out)
    }
}
