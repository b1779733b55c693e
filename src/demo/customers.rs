//! The bank's customers, their passwords and what they have; in memory, and afresh at every start.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Everybody's password: it is written on the page.
pub const PASSWORD: &str = "harbour";

/// Somebody with an account.
pub struct Customer {
    /// What they sign in with.
    pub name: &'static str,
    /// What they are called.
    pub full_name: &'static str,
    /// The bank's own opaque name for them, by which the engine knows them.
    pub user_id: &'static str,
    /// Their money.
    pub balance: &'static str,
    /// What moved lately: what, amount.
    pub statement: &'static [(&'static str, &'static str)],
    first_payout: &'static str,
}

/// Everybody.
pub const CUSTOMERS: &[Customer] = &[
    Customer {
        name: "ann",
        full_name: "Ann Keller",
        user_id: "harbour-1001",
        balance: "£4,210.17",
        statement: &[("Quay Street Bakery", "−£6.40"), ("Salary", "+£2,950.00"), ("Ferry season ticket", "−£84.00")],
        first_payout: "GB33BUKB20201555555555",
    },
    Customer {
        name: "ben",
        full_name: "Ben Okafor",
        user_id: "harbour-1002",
        balance: "£18,003.52",
        statement: &[("Boatyard Ltd", "−£1,240.00"), ("Rent received", "+£1,100.00"), ("Chandlery", "−£37.95")],
        first_payout: "NL91ABNA0417164300",
    },
];

/// Who signs in with this name and password. It takes the same time whatever is wrong.
pub fn sign_in(name: &str, password: &str) -> Option<&'static Customer> {
    let is_right = bool::from(Sha256::digest(password.as_bytes()).ct_eq(&Sha256::digest(PASSWORD.as_bytes())));
    let mut found = None;
    for customer in CUSTOMERS {
        if bool::from(Sha256::digest(customer.name).ct_eq(&Sha256::digest(name.to_lowercase()))) {
            found = Some(customer);
        }
    }
    found.filter(|_| is_right)
}

/// Where money goes, customer by customer.
#[derive(Default)]
pub struct Accounts {
    payouts: Mutex<HashMap<&'static str, String>>,
}

impl Accounts {
    /// The account to which a customer's money is paid out.
    pub fn payout(&self, customer: &Customer) -> String {
        let payouts = self.payouts.lock().unwrap_or_else(PoisonError::into_inner);
        payouts.get(customer.user_id).cloned().unwrap_or_else(|| customer.first_payout.to_owned())
    }

    /// Pays out to another account from now on.
    pub fn set_payout(&self, customer: &'static Customer, iban: String) {
        self.payouts.lock().unwrap_or_else(PoisonError::into_inner).insert(customer.user_id, iban);
    }

    /// Forgets what the customer changed. Who signs in again begins afresh: a demo needs its people.
    pub fn delete(&self, customer: &Customer) {
        self.payouts.lock().unwrap_or_else(PoisonError::into_inner).remove(customer.user_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_name_with_the_right_password_signs_in() {
        assert_eq!(sign_in("Ann", PASSWORD).map(|c| c.name), Some("ann"));
        for (name, password) in [("ann", "harbor"), ("nobody", PASSWORD), ("", ""), ("ann", "")] {
            assert!(sign_in(name, password).is_none(), "{name} {password}");
        }
    }
}
