"""RentSync, a receiver of rent rolls: the batch POST, and a stand-in of the receiver for the demo and the tests."""
