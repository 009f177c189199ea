"""HTTP in: browsers with the write key, back ends with the secret key. Answers when Kafka has it."""
