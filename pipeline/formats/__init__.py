"""What leaves and enters: networks in the formats that other tools read and write."""
