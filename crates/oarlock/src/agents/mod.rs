//! Resource agents: each turns the core's commands for one kind of resource into deeds, and tells
//! what happened.

pub mod address;
pub mod distribution;
pub mod launcher;
pub mod mariadb;
pub mod postgresql;
pub mod service;
pub mod user;
