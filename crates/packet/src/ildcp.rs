//! ILDCP: a child asks its parent for its address and the asset between them (RFC 31).
//!
//! Only what is peculiar to ILDCP is here. That a request carries the peer condition, no money and
//! has not expired, and that a response carries the peer fulfillment, is checked by the nodes, as
//! for every packet to `peer.*`.
//!
//! ```
//! use rialto_packet::{Fulfill, FulfillBuilder, PEER_CONDITION, PEER_FULFILLMENT, Prepare, Timestamp};
//! use rialto_packet::{ildcp, money::Asset};
//!
//! let request = Prepare::parse(ildcp::request(Timestamp::from_unix_ms(60_000)))?;
//! assert_eq!(request.destination().as_str(), ildcp::DESTINATION);
//! assert_eq!((request.amount(), request.condition()), (0, PEER_CONDITION));
//!
//! let response = ildcp::Response {
//!     client_address: "g.parent.child".parse()?,
//!     asset: Asset::new("USD", 9)?,
//! };
//! let data = response.encode();
//! let reply = FulfillBuilder { fulfillment: PEER_FULFILLMENT, data: &data }.encode()?;
//! assert_eq!(ildcp::Response::parse(Fulfill::parse(reply)?.data())?, response);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use thiserror::Error;

use crate::{
    PEER_CONDITION,
    address::{Addr, Address, AddressError},
    money::Asset,
    oer::{self, OerError, Reader},
    packet::PrepareBuilder,
    timestamp::Timestamp,
};

/// Where requests go; answered by the direct neighbour, never forwarded.
pub const DESTINATION: &str = "peer.config";

/// What a parent tells its child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The child's own address.
    pub client_address: Address,
    /// The asset of the account between parent and child.
    pub asset: Asset,
}

/// Why the data of a Fulfill is not an ILDCP response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IldcpError {
    /// Truncated or badly encoded.
    #[error("malformed ildcp response: {0}")]
    Oer(#[from] OerError),
    /// The address is not one.
    #[error("malformed client address: {0}")]
    Address(#[from] AddressError),
    /// The asset code is empty, not UTF-8 or longer than an asset code may be.
    #[error("asset code is not valid")]
    AssetCode,
}

/// The request, to be sent on the link to the parent.
pub fn request(expires_at: Timestamp) -> Vec<u8> {
    PrepareBuilder {
        amount: 0,
        expires_at,
        condition: PEER_CONDITION,
        destination: Addr::new(DESTINATION).expect("a valid address"),
        data: &[],
    }
    .encode()
    .expect("no data is not too much")
}

impl Response {
    /// Reads the data of the Fulfill; bytes after the last field are ignored.
    pub fn parse(data: &[u8]) -> Result<Self, IldcpError> {
        let mut reader = Reader::new(data);
        let client_address = Addr::from_bytes(reader.var_octets()?)?.to_owned();
        let scale = reader.u8()?;
        let code = std::str::from_utf8(reader.var_octets()?).map_err(|_| IldcpError::AssetCode)?;
        let asset = Asset::new(code, scale).map_err(|_| IldcpError::AssetCode)?;
        Ok(Self {
            client_address,
            asset,
        })
    }

    /// The data of the Fulfill.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        oer::put_var_octets(&mut out, self.client_address.as_str().as_bytes());
        out.push(self.asset.scale());
        oer::put_var_octets(&mut out, self.asset.code().as_bytes());
        out
    }
}
