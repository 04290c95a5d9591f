"""The rules of a proof, one file for each family. Each rule sees every call once, and names its violations at the end."""
