//! Who owes whom.

use std::sync::Arc;

use axum::{Json, extract::State};
use rialto_ledger::{Account, AccountSettings};

use crate::{
    Api, Problem,
    auth::{Allowed, ToRead},
    shapes::{Balance, Balances, InFlight, Position, SignedAmount},
    words,
};

/// Balances of all accounts, in numbers and in words, and the node's own positions.
#[utoipa::path(
    get,
    path = "/v1/balances",
    operation_id = "list_balances",
    tag = "balances",
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "All balances", body = Balances),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(_: Allowed<ToRead>, State(api): State<Api>) -> Json<Balances> {
    // The core stands still only while the numbers are copied; there may be very many.
    let (accounts, positions) = api.node.read(|connector| {
        let ledger = connector.ledger();
        let accounts: Vec<_> = ledger.accounts().map(Seen::copy).collect();
        let positions = ledger.positions().zip(ledger.settled());
        let positions: Vec<_> = positions
            .map(|((asset, amount, _), (_, settled))| (asset.clone(), amount, settled))
            .collect();
        (accounts, positions)
    });
    Json(Balances {
        balances: accounts.into_iter().map(Seen::in_words).collect(),
        positions: positions
            .into_iter()
            .map(|(asset, amount, settled)| Position {
                asset_code: asset.code().to_owned(),
                asset_scale: asset.scale(),
                amount: SignedAmount(amount),
                settled: SignedAmount(settled),
            })
            .collect(),
    })
}

/// Of an account, while the core is locked.
struct Seen {
    settings: Arc<AccountSettings>,
    balance: i128,
    available: i128,
    in_flight: InFlight,
}

impl Seen {
    fn copy(account: &Account) -> Self {
        Self {
            settings: Arc::clone(&account.settings),
            balance: account.balance(),
            available: account.available(),
            in_flight: in_flight(account),
        }
    }

    fn in_words(self) -> Balance {
        let (name, asset) = (&self.settings.name, &self.settings.asset);
        let words = words::balance(name, asset, self.balance, self.available);
        Balance {
            account: name.clone(),
            asset_code: asset.code().to_owned(),
            asset_scale: asset.scale(),
            balance: SignedAmount(self.balance),
            available: SignedAmount(self.available),
            in_flight: self.in_flight,
            words,
        }
    }
}

pub(crate) fn in_flight(account: &Account) -> InFlight {
    let exposure = account.exposure();
    InFlight {
        count: exposure.in_flight_count,
        amount: signed(exposure.in_flight),
    }
}

pub(crate) fn in_words(account: &Account) -> String {
    words::balance(
        &account.settings.name,
        &account.settings.asset,
        account.balance(),
        account.available(),
    )
}

/// Sums of what packets carry stay far below 2^127.
pub(crate) fn signed(amount: u128) -> SignedAmount {
    SignedAmount(i128::try_from(amount).unwrap_or(i128::MAX))
}
