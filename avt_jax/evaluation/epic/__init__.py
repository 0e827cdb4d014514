"""EPIC-Kitchens-100 as its action recognition challenge is judged."""
