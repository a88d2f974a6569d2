"""The contextual bandit: arms, trials, drift and the choice by utility."""
