//! Interfaces and their addresses as the kernel reports them.

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::NetworkError;
use super::frames::MacAddress;
use super::netlink::Netlink;

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddress>,
    /// Switched on by the administrator.
    pub up: bool,
    /// The cable (or the peer) is there.
    pub carrier: bool,
    /// It is the loopback interface.
    pub loopback: bool,
}

impl Interface {
    pub(super) fn from_message(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let loopback = flags.contains(LinkFlags::Loopback);
        let mut interface = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            loopback,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name.clone_from(name),
                LinkAttribute::Address(bytes) if !loopback => {
                    interface.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddress);
                }
                LinkAttribute::Carrier(carrier) => interface.carrier = *carrier != 0,
                _ => {}
            }
        }
        interface
    }

    /// Its Ethernet address.
    ///
    /// # Errors
    /// When it has none.
    pub fn ethernet(&self) -> Result<MacAddress, NetworkError> {
        self.mac.ok_or_else(|| NetworkError::NoEthernet { name: self.name.clone() })
    }
}

/// One address of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// Number of the interface.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// Length of its subnet prefix, in bits.
    pub prefix_bits: u8,
}

impl InterfaceAddress {
    pub(super) fn from_message(message: &AddressMessage) -> Option<Self> {
        let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
        // On a point-to-point interface `Address` is the far end; IPv6 has no `Local`.
        let local = find(|attribute| match attribute {
            AddressAttribute::Local(ip) => Some(*ip),
            _ => None,
        });
        let ip = local.or_else(|| {
            find(|attribute| match attribute {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            })
        })?;
        Some(Self { index: message.header.index, ip, prefix_bits: message.header.prefix_len })
    }
}

/// Interfaces and addresses at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All interfaces.
    pub interfaces: Vec<Interface>,
    /// All addresses.
    pub addresses: Vec<InterfaceAddress>,
}

impl Snapshot {
    /// Asks the kernel. May block for up to a second; see [`Snapshot::take`].
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn take_blocking() -> Result<Self, NetworkError> {
        let mut netlink = Netlink::open()?;
        Ok(Self { interfaces: netlink.interfaces()?, addresses: netlink.addresses()? })
    }

    /// Asks the kernel without holding up the runtime.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn take() -> Result<Self, NetworkError> {
        tokio::task::spawn_blocking(Self::take_blocking)
            .await
            .unwrap_or_else(|error| Err(NetworkError::kernel("listing interfaces")(error.into())))
    }

    /// The interface of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn interface(&self, name: &str) -> Result<&Interface, NetworkError> {
        self.interfaces
            .iter()
            .find(|interface| interface.name == name)
            .ok_or_else(|| NetworkError::UnknownInterface { name: name.into() })
    }

    /// The interface whose subnet an address belongs to: one that has it already, else one with
    /// another address in the same subnet; one with carrier before one without.
    ///
    /// # Errors
    /// When there is none.
    pub fn interface_for(&self, ip: IpAddr, prefix_bits: u8) -> Result<&Interface, NetworkError> {
        let rank = |interface: &&Interface| {
            let mut own = self.addresses.iter().filter(|address| address.index == interface.index);
            let near = |address: &InterfaceAddress| same_subnet(address.ip, ip, prefix_bits);
            let holds = own.clone().any(|address| address.ip == ip);
            own.any(near).then_some((holds, interface.up && interface.carrier))
        };
        self.interfaces
            .iter()
            .filter(|interface| rank(interface).is_some())
            // The first of the best: `max_by_key` would take the last.
            .rev()
            .max_by_key(rank)
            .ok_or(NetworkError::NoInterface { ip, prefix_bits })
    }

    /// Whether any interface has this address.
    #[must_use]
    pub fn holds(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|address| address.ip == ip)
    }
}

/// Whether two addresses are in one network whose prefix has this many bits.
#[must_use]
pub fn same_subnet(a: IpAddr, b: IpAddr, prefix_bits: u8) -> bool {
    let (a, b, width) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32_u32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let host_bits = width.saturating_sub(prefix_bits.into());
    a.checked_shr(host_bits).unwrap_or(0) == b.checked_shr(host_bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let interface = |index, carrier| Interface {
            index,
            name: format!("eth{index}"),
            mac: None,
            up: true,
            carrier,
            loopback: false,
        };
        let address = |index, ip: &str| InterfaceAddress { index, ip: ip.parse().unwrap(), prefix_bits: 24 };
        Snapshot {
            interfaces: vec![interface(1, false), interface(2, true), interface(3, true)],
            addresses: vec![
                address(1, "10.0.0.1"),
                address(2, "10.0.0.2"),
                address(3, "192.168.0.1"),
                address(3, "fd00::1"),
            ],
        }
    }

    fn chosen(snapshot: &Snapshot, ip: &str, prefix_bits: u8) -> Option<u32> {
        snapshot.interface_for(ip.parse().unwrap(), prefix_bits).ok().map(|interface| interface.index)
    }

    #[test]
    fn an_address_goes_where_its_subnet_is() {
        let mut snapshot = snapshot();
        assert_eq!(chosen(&snapshot, "10.0.0.100", 24), Some(2), "carrier before none");
        assert_eq!(chosen(&snapshot, "192.168.0.100", 24), Some(3));
        assert_eq!(chosen(&snapshot, "192.168.1.100", 24), None);
        assert_eq!(chosen(&snapshot, "192.168.1.100", 16), Some(3));
        assert_eq!(chosen(&snapshot, "fd00::100", 64), Some(3));
        assert_eq!(chosen(&snapshot, "fd01::100", 64), None);
        let held = InterfaceAddress { index: 1, ip: "10.0.0.100".parse().unwrap(), prefix_bits: 24 };
        snapshot.addresses.push(held);
        assert_eq!(chosen(&snapshot, "10.0.0.100", 24), Some(1), "where it is already");
    }

    #[test]
    fn a_prefix_of_zero_is_everything() {
        assert!(same_subnet("1.2.3.4".parse().unwrap(), "200.0.0.1".parse().unwrap(), 0));
        assert!(!same_subnet("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap(), 128));
    }
}
