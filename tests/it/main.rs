//! The one integration binary: everything that is tested from outside.
#![cfg(test)]

mod dialogues;
mod store_contract;
mod vectors;
