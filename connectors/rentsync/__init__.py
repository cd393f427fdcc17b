"""RentSync, a receiver of rent rolls: delivery of batches, and a stand-in of the receiver for demo and tests."""
