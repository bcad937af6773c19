"""What happens when the network, the server or its data do what they should not."""
