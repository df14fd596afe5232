//! The one integration binary: everything that is tested from outside.
#![cfg(test)]
#![expect(unreachable_pub, reason = "nothing outside this binary can reach anything in it")]
#![expect(clippy::string_slice, reason = "a test that cuts text wrongly may fail")]

mod accounts;
mod borders;
mod branding;
mod browser;
mod browser_account;
mod browser_expiry;
mod browser_uploads;
mod clock;
mod crash;
mod demo;
mod destroyed;
mod dialogues;
mod disk;
mod dkim;
mod dnssec;
mod dnssec_forged;
mod drain;
mod dsn;
mod fault_points;
mod key_exchange;
mod large;
mod life;
mod limits;
mod looks;
mod main_job;
mod many;
mod matrix;
mod metrics;
mod mta_sts;
mod mutual_tls;
mod no_plaintext;
mod oidc;
mod oidc_provider;
mod policy_tools;
mod probe;
mod queue_orders;
mod reading;
mod refusals;
mod reload;
mod replay;
mod requiretls;
mod retry;
mod reuse;
mod scanner;
mod second_channel;
mod simulation;
mod smuggling;
mod store_contract;
mod support;
mod tidy;
mod tls_report;
mod vectors;
mod writing;
