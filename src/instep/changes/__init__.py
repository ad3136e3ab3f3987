"""Change requests: proposal, evidence, policy, approvals."""
