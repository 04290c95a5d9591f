#!/usr/bin/env python
from modfleet.manage import main

if __name__ == "__main__":
    main()
