//! The one integration binary: everything that is tested from outside.
#![cfg(test)]
#![expect(unreachable_pub, reason = "nothing outside this binary can reach anything in it")]
#![expect(clippy::string_slice, reason = "a test that cuts text wrongly may fail")]

mod branding;
mod browser;
mod demo;
mod dialogues;
mod dkim;
mod dnssec;
mod dnssec_forged;
mod dsn;
mod key_exchange;
mod large;
mod life;
mod main_job;
mod matrix;
mod metrics;
mod mta_sts;
mod mutual_tls;
mod no_plaintext;
mod policy_tools;
mod probe;
mod queue_orders;
mod refusals;
mod reload;
mod replay;
mod requiretls;
mod store_contract;
mod support;
mod tidy;
mod tls_report;
mod vectors;
mod writing;
