//! ILPv4 packets, OER, addresses, error codes, ILDCP and money.
