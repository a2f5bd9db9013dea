//! Amounts in words: nobody has to remember what a sign means.

use rialto_packet::money::Asset;

/// Who owes whom on an account, and what is left of the credit that we give.
///
/// `balance` and `available` are as the books have them: seen from the account holder, in units of
/// `asset`.
///
/// ```
/// use rialto_admin::words::balance;
/// use rialto_packet::money::Asset;
///
/// let usd = Asset::new("USD", 2)?;
/// assert_eq!(balance("bob", &usd, -1_200, 98_800), "bob owes us 12.00 USD, free 988.00");
/// assert_eq!(balance("bob", &usd, -1_200, -200), "bob owes us 12.00 USD, 2.00 over the limit");
/// assert_eq!(balance("bob", &usd, 300, 100_300), "we owe bob 3.00 USD");
/// assert_eq!(balance("bob", &usd, 0, 100_000), "even");
/// # Ok::<(), rialto_packet::money::MoneyError>(())
/// ```
pub fn balance(name: &str, asset: &Asset, balance: i128, available: i128) -> String {
    let code = asset.code();
    match balance {
        0 => "even".to_owned(),
        1.. => format!("we owe {name} {} {code}", asset.decimal(balance)),
        _ => {
            let owed = asset.decimal(-balance);
            let rest = if available < 0 {
                format!("{} over the limit", asset.decimal(-available))
            } else {
                format!("free {}", asset.decimal(available))
            };
            format!("{name} owes us {owed} {code}, {rest}")
        }
    }
}
